"""People of a result as animated characters for other programs, and as a page for browsers.

from main.characters.export import export_result

export_result(folder, ["glb", "bvh"], persons=[1])

options.py        the formats, and options of exports
export.py         a result folder -> files of every format
character.py      a person's results as one shape and rotations over time
surfaces.py       its skeleton and skinned surfaces: body, clothes, hair, morph targets of the face
formats.py        a character as GLB, USD, BVH, AMASS, or one mesh per frame
viewer.py         the page; scene.py: its data about people, page/: its JavaScript
"""
