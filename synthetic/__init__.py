"""Pictures and clips of synthetic people, rendered with exact ground truth.

`production.synthesize` renders a data set. `pictures` (crops and scenes), `clips`, `demo` (the clip
in demo/, in the room of `hall`) and `shots` (clips in that room with a moving camera) plan and
render its pictures. `poses`, `arms` (with hands), `motion` and `skeleton` generate poses;
`wardrobe` and `appearance` generate clothes, hair and faces; `figures` poses people and builds
their meshes; `rendering` draws meshes in front of `backgrounds`; `ground_truth` writes the
annotations. `lifting` simulates detected keypoints, for training without pictures.
"""
