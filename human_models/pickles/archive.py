"""The members of a zip archive, checked against what the archive can hold."""

import zipfile
from typing import Final

_COMPRESSIONS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Those that NumPy writes."""
_DEFLATE_RATIO: Final = 1032
"""No deflated bytes become more than so many each."""
_LOCAL_HEADER: Final = 30
_ENCRYPTED: Final = 1


def checked_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by their names without '.npy', in the archive's order.

    Raises:
        ValueError: two have the same name, a name does not fit on a line, or the archive cannot
            hold what it says: its members overlap, or inflate to more than is possible.
    """
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if not name.isprintable():
            raise ValueError(f"a member with the name {name[:100]!a}")
        if name in members:
            raise ValueError(f"two members with the name '{name[:100]}'")
        if info.flag_bits & _ENCRYPTED:
            raise ValueError(f"member '{name[:100]}' is encrypted")
        if info.compress_type not in _COMPRESSIONS:
            raise ValueError(
                f"member '{name[:100]}' is compressed in a way that NumPy does not use"
            )
        ratio = 1 if info.compress_type == zipfile.ZIP_STORED else _DEFLATE_RATIO
        if info.file_size > ratio * info.compress_size:
            raise ValueError(f"member '{name[:100]}' is said to be larger than it can be")
        members[name] = info
    _check_places(archive, list(members.values()))
    return members


def _check_places(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> None:
    end = 0
    for info in sorted(members, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise ValueError("members that overlap")
        end = info.header_offset + _LOCAL_HEADER + info.compress_size
    if end > archive.start_dir:
        raise ValueError("members that overlap the archive's index")
