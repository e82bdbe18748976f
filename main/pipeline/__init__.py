"""From a video or photographs to people: what `main.inference` runs, and the estimator alone.

from main.pipeline import Estimator

estimator = Estimator.load("smplest_x_h")
people = estimator(image, boxes=[(120, 40, 200, 480)])

pipeline.py     all steps for a clip, in one function
options.py      options of the command line
stages.py       the steps for each frame, with tracking and following by keypoints
estimator.py    the network and the body: image in pixels and boxes -> people
detection.py    person detectors and files of boxes
detector_weights.py  files of ultralytics' person detectors
networks.py     the built-in networks, with the built-in detector
keypoints.py    keypoints by the built-in networks
keypoint_files.py  keypoints of other programs
overlay.py      people drawn over their frames, and the sheet of people
clips.py        many clips, in this process or on Ray
model_files.py  weights and config of MODEL_DIR
health.py       the checks of main.doctor
"""

from typing import TYPE_CHECKING

from main import lazy_names

if TYPE_CHECKING:
    from main.pipeline.estimator import Estimator as Estimator
    from main.pipeline.estimator import Person as Person
    from main.pipeline.options import InferenceOptions as InferenceOptions
    from main.pipeline.pipeline import ClipResult as ClipResult
    from main.pipeline.pipeline import Tools as Tools
    from main.pipeline.pipeline import process_clip as process_clip

_MODULES = {
    "Estimator": "estimator",
    "Person": "estimator",
    "InferenceOptions": "options",
    "ClipResult": "pipeline",
    "Tools": "pipeline",
    "process_clip": "pipeline",
}
__all__ = sorted(_MODULES)
__getattr__ = lazy_names(__name__, _MODULES)
