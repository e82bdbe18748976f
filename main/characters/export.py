"""Export a folder of results as characters in the chosen formats, and as the viewer."""

import logging
import os
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
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
from main.characters.character import (
    CHARACTER_FIELDS,
    WORLD_FIELDS,
    Character,
    at_origin,
    read_character,
)
from main.characters.formats import write_amass, write_bvh, write_glb, write_meshes, write_usd
from main.characters.options import (
    DEFAULTS,
    ENDINGS,
    VIEWER,
    ExportOptions,
    Space,
    check_formats,
    default_up,
)
from main.characters.scene import VIEWED_FIELDS
from main.characters.viewer import write_viewer
from main.motion.result_reader import Result, open_result, person_files
from utils.errors import UserError
from utils.files import CONFIG_NAME, ROOT

log = logging.getLogger(__name__)

_PAGE: Final = "viewer.html"
_DEFAULT_BODIES: Final = "human_models/human_model_files"


def exported_paths(folder: Path, people: Iterable[Path], formats: Sequence[str]) -> list[Path]:
    """The paths that `export_result` writes for the files of people in a result folder."""
    endings = [ENDINGS[name] for name in formats if name != VIEWER]
    paths = [folder / "export" / (file.stem + ending) for file in people for ending in endings]
    return paths + ([folder / _PAGE] if VIEWER in formats else [])


def keep_exports(old: Path, new: Path, formats: Sequence[str]) -> None:
    """Copy the exports of an older result folder into the new one, until they are overwritten.

    Exports that will not be overwritten do not fit the new results; they are left out and logged.

    Args:
        formats: those that will be written for the new results.
    """
    kept = exported_paths(Path(), person_files(new).values(), formats)
    for path in kept:
        if (old / path).exists():
            (new / path).parent.mkdir(exist_ok=True)
            if (old / path).is_dir():
                shutil.copytree(old / path, new / path)
            else:
                shutil.copy2(old / path, new / path)
    exports = [*(old / "export").glob("[!.]*"), *old.glob(_PAGE)]
    removed = sorted({str(path.relative_to(old)) for path in exports} - set(map(str, kept)))
    if removed:
        log.info("%s: removed with the earlier results: %s", old, ", ".join(removed))


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
    """Write the people of a result folder as characters; return the new files and folders.

    The viewer is one page of all people, written last, so that it offers the other formats.
    All files are read before anything is written, so a damaged folder leaves no incomplete output.

    Args:
        formats: names from FORMATS.
        persons: numbers of the people to export; None: all.
        output: None: `folder`/export, and `folder` for the viewer.
        source: the video or image of the results, for the viewer; None: the one that the summary
            names, if it is beside `folder` or in demo/.
        bodies: the folder of body models; None: see `_read_body`.

    Raises:
        UserError: the folder is no result, a person or format is unknown, a body file is missing.
    """
    check_formats(formats, options)
    result = _with_people(open_result(folder), persons)
    characters = folder / "export" if output is None else output
    if output is None and not characters.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{characters} is a link that leads out of its folder; give --output DIR")
    body_name, space = _check_people(result, VIEWER in formats, options.space)
    options = replace(options, space=space)
    data = _read_body(folder, body_name, bodies)
    body = BodyModel(data).eval()
    written = []
    for number, file in result.files.items():
        for name in dict.fromkeys(formats):
            if name == VIEWER:
                continue
            character = read_character(file, body, options.up or default_up(name), space)
            if options.origin == "person":
                character = at_origin(character, body)
            written.append(characters / (file.stem + ENDINGS[name]))
            _write(written[-1], name, character, number, data, body, options)
            log.info("%s", written[-1])
    if VIEWER in formats:
        written.append((folder if output is None else output) / _PAGE)
        write_viewer(written[-1], result, data, body, options=options, source=source)
        log.info("%s", written[-1])
    if "amass" in formats and data.name == STAND_IN_NAME:
        log.warning("amass: with SMPL-X, the betas of the %s give other shapes", STAND_IN_NAME)
    return written


def _write(
    path: Path,
    name: str,
    character: Character,
    number: int,
    data: BodyData,
    body: BodyModel,
    options: ExportOptions,
) -> None:
    """Write a person in the format `name`."""
    match name:
        case "amass":
            write_amass(path, character, data)
        case "bvh":
            write_bvh(path, character, data)
        case "glb":
            write_glb(path, character, data, number, clothes=options.clothes)
        case "usd":
            write_usd(path, character, data, number, clothes=options.clothes)
        case "obj" | "ply":
            write_meshes(path, character, body, name, every=options.every)
        case _:
            raise ValueError(f"there is no writer for {name}")


def _with_people(result: Result, persons: Collection[int] | None) -> Result:
    """The result with only some of its people."""
    absent = sorted(set(persons or ()) - result.files.keys())
    if absent:
        people = ", ".join(map(str, result.files))
        raise UserError(f"--person {absent[0]}: {result.folder} has {people}; see its summary.json")
    files = {k: file for k, file in result.files.items() if not persons or k in persons}
    return replace(result, files=files)


def _check_people(result: Result, viewer: bool, space: Space | None) -> tuple[str, Space]:
    """Read the file of each person; return the name of their body model, and the coordinates.

    Args:
        space: the requested coordinates; None: those of the world, if all files have them.
    """
    names, outside = {}, []
    for number, file in result.files.items():
        content = result.read_person(number, VIEWED_FIELDS if viewer else CHARACTER_FIELDS)
        names[str(content["body_model"])] = file
        if not content.keys() >= set(WORLD_FIELDS):
            outside.append(file)
    if len(names) > 1:
        one, other, *_ = names.values()
        raise UserError(f"{one} and {other} have different body models; run inference again")
    if viewer:
        result.require_summary()
    if space == "world" and outside:
        remedy = "run inference with --world, or give --space camera"
        raise UserError(f"{outside[0]} has no world coordinates; {remedy}")
    (name,) = names
    return name, space or ("camera" if outside else "world")


def _read_body(folder: Path, name: str, bodies: Path | None) -> BodyData:
    """The body model of the results.

    Without `bodies`, the config in the result folder gives its folder. As the config may come from
    a stranger, it is followed only within the project; otherwise the default folder is used.
    """
    if name == STAND_IN_NAME:
        return read_body(ModelFolder(STAND_IN, STAND_IN_NAME), "smplx")
    config = folder / CONFIG_NAME
    place = ROOT / _DEFAULT_BODIES if bodies is None else bodies
    if bodies is None and config.is_file():
        named = Path(os.path.normpath(ROOT / load_config(config).model.human_model_path))
        if named.is_relative_to(ROOT):
            place = named
        else:
            message = "%s: its body folder is outside the project and not used; see --body-folder"
            log.info(message, config)
    found = find_model_folder(place)
    if found.name == STAND_IN_NAME:
        reason = f"was made with {name}, whose files are not in {place}"
        raise UserError(f"{folder} {reason}; put them there, or give --body-folder DIR")
    return read_body(found, "smplx")
