"""A folder of results -> characters in the formats that were asked for, and the viewer."""

import logging
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
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
from main.exporting.character import Character, on_the_spot, read_body_name, read_character
from main.exporting.glb import write_glb
from main.exporting.meshes import write_meshes
from main.exporting.options import DEFAULTS, FORMATS, VIEWER, ExportOptions, UpAxis
from main.exporting.usd import require_usd, write_usd
from main.paths import ROOT
from main.pipeline.model_files import CONFIG_NAME
from main.viewing.viewer import write_viewer
from utils.errors import UserError

log = logging.getLogger(__name__)

_PERSON_FILE: Final = re.compile(r"person_(\d+)\.npz")
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
) -> list[Path]:
    """Write the people of a result folder as characters; the files and folders that were written.

    The viewer is one page of all people, written last, so that it offers the other formats.

    Args:
        formats: of FORMATS.
        persons: their numbers; None: all.
        output: None: `folder`/export, and `folder` for the viewer.

    Raises:
        UserError: the folder is no result, a person or format is unknown, a body file is missing.
    """
    check_formats(formats, options)
    characters = folder / "export" if output is None else output
    written = []
    files = _person_files(folder, persons)
    for number, file in files.items():
        data = _read_body(folder, file)
        body = BodyModel(data).eval()
        person = _Person(number, file, data, body, options)
        for name in dict.fromkeys(formats):
            if name != VIEWER:
                written.append(_EXPORTERS[name](person, characters))
                log.info("%s", written[-1])
    if VIEWER in formats:
        written.append((folder if output is None else output) / "viewer.html")
        write_viewer(written[-1], folder, files, data, body, clothes=options.clothes)
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


def _person_files(folder: Path, persons: Collection[int] | None) -> dict[int, Path]:
    files = {
        int(match[1]): file
        for file in sorted(folder.glob("person_*.npz"))
        if (match := _PERSON_FILE.fullmatch(file.name))
    }
    if not files:
        raise UserError(f"{folder} has no person_001.npz; give a folder of results of inference")
    absent = sorted(set(persons or ()) - files.keys())
    if absent:
        people = ", ".join(map(str, files))
        raise UserError(f"--person {absent[0]}: {folder} has {people}; see its summary.json")
    return {number: file for number, file in files.items() if not persons or number in persons}


def _read_body(folder: Path, file: Path) -> BodyData:
    """The body that the results were made with."""
    wanted = read_body_name(file)
    if wanted == STAND_IN_NAME:
        return read_body(ModelFolder(STAND_IN, STAND_IN_NAME), "smplx")
    config = folder / CONFIG_NAME
    bodies = load_config(config).model.human_model_path if config.is_file() else _DEFAULT_BODIES
    found = find_model_folder(ROOT / bodies)
    if found.name == STAND_IN_NAME:
        raise UserError(
            f"{file} was made with {wanted}, whose files are not in {ROOT / bodies}; put them there"
        )
    return read_body(found, "smplx")
