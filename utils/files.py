"""Files that appear whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends well.

    The temporary name keeps the suffix (encoders choose their format by it) and may become a
    file or a folder; a folder replaces an existing folder. If the block raises, nothing of it
    is left and what stood at `path` before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=".partial_", dir=path.parent))
    try:
        partial = holder / path.name
        yield partial
        if partial.is_dir() and path.is_dir():
            path.rename(holder / "replaced")
        partial.replace(path)
    finally:
        shutil.rmtree(holder, ignore_errors=True)
