"""Pictures and clips of synthetic people, drawn with exact ground truth.

`production.synthesize` draws a whole set. Below it: `pictures` (crops and scenes), `clips` and
`demo` (the clip in demo/, which plays in `hall`) plan and draw; `poses`, `arms` (with hands),
`motion` and `skeleton` give poses; `wardrobe` and `appearance` give looks; `figures` poses people
and makes meshes; `stage` places them before a camera; `rendering` and `backgrounds` make the image,
`ground_truth` its annotations.
"""
