"""People of a result as animated characters for other programs, and as a page for browsers.

from main.characters import export_result

export_result(folder, ["glb", "bvh"], persons=[1])

options.py        the formats, and options of exports
export.py         a result folder -> files of every format
character.py      a person's results as one shape and rotations over time, and skinned surfaces:
                  body, clothes, hair, morph targets of the face
formats.py        a character as GLB, USD, BVH, AMASS, or one mesh per frame
viewer.py         the page; scene.py: its data about people, page/: its JavaScript
"""

from typing import TYPE_CHECKING

from main import lazy_names

if TYPE_CHECKING:
    from main.characters.character import Character as Character
    from main.characters.export import export_result as export_result
    from main.characters.options import ExportOptions as ExportOptions
    from main.characters.options import check_formats as check_formats
    from main.characters.options import parse_formats as parse_formats

_MODULES = {
    "Character": "character",
    "ExportOptions": "options",
    "check_formats": "options",
    "export_result": "export",
    "parse_formats": "options",
}
__all__ = sorted(_MODULES)
__getattr__ = lazy_names(__name__, _MODULES)
