"""Pictures and clips of synthetic people, drawn with exact ground truth.

`production.synthesize` draws a whole set. Below it: `pictures` (crops and scenes) and `clips` plan
and draw; `poses`, `arms` (with hands) and `skeleton` give poses; `wardrobe` and `appearance` give
looks; `figures` poses people and makes meshes; `stage` places them before a camera; `rendering` and
`backgrounds` make the image, `ground_truth` its annotations.
"""
