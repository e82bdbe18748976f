"""Pictures and clips of synthetic people, drawn with exact ground truth.

`production.synthesize` draws a set. Below it, `pictures` (crops and scenes), `clips`, `demo`
(the clip in demo/, which plays in `hall`) and `shots` (clips there whose camera moves) plan and
draw; `poses`, `arms` (with hands), `motion` and `skeleton` give poses; `wardrobe` and `appearance`
give looks; `figures` poses people and makes meshes; `rendering` places them before a camera and
draws them before `backgrounds`; `ground_truth` annotates the image.
"""
