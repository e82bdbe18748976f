"""A folder of results -> characters in the formats that were asked for, and the viewer."""

import logging
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from configs.reader import load_config
from human_models.body import BodyModel
from human_models.files import (
    STAND_IN,
    STAND_IN_NAME,
    BodyData,
    ModelFolder,
    find_model_folder,
    read_body,
)
from main.exporting.amass import write_amass
from main.exporting.bvh import write_bvh
from main.exporting.character import (
    CHARACTER_FIELDS,
    Character,
    on_the_spot,
    read_character,
)
from main.exporting.glb import write_glb
from main.exporting.meshes import write_meshes
from main.exporting.options import DEFAULTS, FORMATS, VIEWER, ExportOptions, UpAxis
from main.exporting.usd import require_usd, write_usd
from main.motion.result_reader import Result, open_result
from main.paths import ROOT
from main.pipeline.model_files import CONFIG_NAME
from main.viewing.people import VIEWED_FIELDS
from main.viewing.viewer import write_viewer
from utils.errors import UserError

log = logging.getLogger(__name__)

_DEFAULT_BODIES: Final = "human_models/human_model_files"


@dataclass(frozen=True, eq=False)
class _Person:
    """One person, and what the writers need to know."""

    number: int
    file: Path
    data: BodyData
    body: BodyModel
    options: ExportOptions

    def character(self, default_up: UpAxis = "y") -> Character:
        character = read_character(self.file, self.body, self.options.up or default_up)
        return character if self.options.origin == "camera" else on_the_spot(character, self.body)


def _export_amass(person: _Person, folder: Path) -> Path:
    path = folder / f"{person.file.stem}_amass.npz"
    write_amass(path, person.character("z"), person.data)
    return path


def _export_glb(person: _Person, folder: Path) -> Path:
    path = folder / f"{person.file.stem}.glb"
    write_glb(path, person.character(), person.data, person.number, clothes=person.options.clothes)
    return path


def _export_bvh(person: _Person, folder: Path) -> Path:
    path = folder / f"{person.file.stem}.bvh"
    write_bvh(path, person.character(), person.data)
    return path


def _export_obj(person: _Person, folder: Path) -> Path:
    path = folder / f"{person.file.stem}_obj"
    write_meshes(path, person.character(), person.body, "obj", every=person.options.every)
    return path


def _export_ply(person: _Person, folder: Path) -> Path:
    path = folder / f"{person.file.stem}_ply"
    write_meshes(path, person.character(), person.body, "ply", every=person.options.every)
    return path


def _export_usd(person: _Person, folder: Path) -> Path:
    path = folder / f"{person.file.stem}.usdc"
    write_usd(path, person.character(), person.data, person.number, clothes=person.options.clothes)
    return path


_EXPORTERS: Final[dict[str, Callable[[_Person, Path], Path]]] = {
    "amass": _export_amass,
    "glb": _export_glb,
    "bvh": _export_bvh,
    "obj": _export_obj,
    "ply": _export_ply,
    "usd": _export_usd,
}
assert set(FORMATS) == {*_EXPORTERS, VIEWER}


def export_result(
    folder: Path,
    formats: Sequence[str],
    *,
    persons: Collection[int] | None = None,
    output: Path | None = None,
    options: ExportOptions = DEFAULTS,
    source: Path | None = None,
    bodies: Path | None = None,
) -> list[Path]:
    """Write the people of a result folder as characters; the files and folders that were written.

    The viewer is one page of all people, written last, so that it offers the other formats.
    Everything is read once before anything is written: a faulty folder leaves nothing behind.

    Args:
        formats: of FORMATS.
        persons: their numbers; None: all.
        output: None: `folder`/export, and `folder` for the viewer.
        source: the video or image that the results are of, for the viewer; None: what the summary
            names, if it lies beside `folder` or in demo/.
        bodies: the folder of body models; None: see `_read_body`.

    Raises:
        UserError: the folder is no result, a person or format is unknown, a body file is missing.
    """
    check_formats(formats, options)
    result = _chosen(open_result(folder), persons)
    characters = folder / "export" if output is None else output
    if output is None and not characters.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{characters} is a link that leads out of its folder; say --output DIR")
    body_name = _check_people(result, VIEWER in formats)
    data = _read_body(folder, body_name, bodies)
    body = BodyModel(data).eval()
    written = []
    for number, file in result.files.items():
        person = _Person(number, file, data, body, options)
        for name in dict.fromkeys(formats):
            if name != VIEWER:
                written.append(_EXPORTERS[name](person, characters))
                log.info("%s", written[-1])
    if VIEWER in formats:
        written.append((folder if output is None else output) / "viewer.html")
        write_viewer(written[-1], result, data, body, source=source, clothes=options.clothes)
        log.info("%s", written[-1])
    if "amass" in formats and data.name == STAND_IN_NAME:
        told = "the %s has betas and expressions of its own: SMPL-X shows other shapes for them"
        log.warning(told, STAND_IN_NAME)
    return written


def check_formats(formats: Sequence[str], options: ExportOptions) -> None:
    """Raises UserError where a format is unknown or cannot be had as asked."""
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UserError(f"--format {','.join(unknown)}: choose of {','.join(FORMATS)}")
    if options.up == "z" and {"glb", "usd", VIEWER} & set(formats):
        told = "glTF is y up by its standard, usd and the viewer as we write them"
        raise UserError(f"--up z: {told}; leave --up away")
    if "usd" in formats:
        require_usd()


def _chosen(result: Result, persons: Collection[int] | None) -> Result:
    absent = sorted(set(persons or ()) - result.files.keys())
    if absent:
        people = ", ".join(map(str, result.files))
        raise UserError(f"--person {absent[0]}: {result.folder} has {people}; see its summary.json")
    files = {k: file for k, file in result.files.items() if not persons or k in persons}
    return replace(result, files=files)


def _check_people(result: Result, viewer: bool) -> str:
    """Read every person's file; the name of the body that all of them were made with."""
    names = {}
    for number, file in result.files.items():
        content = result.read_person(number, VIEWED_FIELDS if viewer else CHARACTER_FIELDS)
        names[str(content["body_model"])] = file
    if len(names) > 1:
        one, other, *_ = names.values()
        raise UserError(f"{one} and {other} differ in 'body_model'; run the inference again")
    if viewer:
        result.require_summary()
    (name,) = names
    return name


def _read_body(folder: Path, wanted: str, bodies: Path | None) -> BodyData:
    """The body that the results were made with.

    Without `bodies`, the config in the result folder says where it lies. As the config may be a
    stranger's, it is followed within the project only; elsewhere the default folder stands for it.
    """
    if wanted == STAND_IN_NAME:
        return read_body(ModelFolder(STAND_IN, STAND_IN_NAME), "smplx")
    config = folder / CONFIG_NAME
    place = ROOT / _DEFAULT_BODIES if bodies is None else bodies
    if bodies is None and config.is_file():
        named = Path(os.path.normpath(ROOT / load_config(config).model.human_model_path))
        if named.is_relative_to(ROOT):
            place = named
        else:
            log.info("%s names a folder outside the project; --body-folder says where", config)
    found = find_model_folder(place)
    if found.name == STAND_IN_NAME:
        told = f"was made with {wanted}, whose files are not in {place}"
        raise UserError(f"{folder} {told}; put them there, or say --body-folder DIR")
    return read_body(found, "smplx")
