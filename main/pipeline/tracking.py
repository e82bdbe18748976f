"""Who is who from frame to frame, as the frames come: boxes and scores in, numbers out.

The work is BoT-SORT's (Aharon et al., 2022; motion by a Kalman filter, overlap, no appearance), as
ultralytics has it. What it loses and finds again under a new number is joined when the video is
over, by what is known of the bodies: see main/motion/stitch.py.
"""

from types import SimpleNamespace
from typing import Final

import numpy as np
from jaxtyping import Bool, Float

from main.pipeline.detection import Detection, import_ultralytics

SETTINGS: Final = {
    "track_high_thresh": 0.25,  # scores from which a detection may begin a track
    "track_low_thresh": 0.0,  # below `track_high_thresh` it can only go on with one
    "new_track_thresh": 0.25,
    "match_thresh": 0.8,  # largest 1 - overlap * score
    "fuse_score": True,
    "gmc_method": "none",  # the camera's own motion is not compensated
    "proximity_thresh": 0.5,
    "appearance_thresh": 0.8,
    "with_reid": False,
}
MEMORY_S: Final = 2.5
"""How long a person who is not seen keeps the number."""


class _Boxes:
    """Detections in the form that ultralytics' trackers take."""

    def __init__(self, xywh: Float[np.ndarray, "N 4"], conf: Float[np.ndarray, " N"]) -> None:
        self.xywh, self.conf, self.cls = xywh, conf, np.zeros(len(conf))

    def __len__(self) -> int:
        return len(self.conf)

    def __getitem__(self, chosen: Bool[np.ndarray, " N"]) -> "_Boxes":
        return _Boxes(self.xywh[chosen], self.conf[chosen])


class Tracker:
    """Gives each detection a number, counted from 1; none is ever dropped."""

    def __init__(self, fps: float) -> None:
        import_ultralytics()
        from ultralytics.trackers.bot_sort import BOTSORT

        settings = SimpleNamespace(**SETTINGS, track_buffer=max(1, round(MEMORY_S * fps)))
        self.tracker = BOTSORT(settings)
        self.numbers: dict[int, int] = {}
        self.count = 0

    def __call__(self, detections: list[Detection]) -> list[int]:
        """Numbers of the detections of the next frame; call it for empty frames, too."""
        rows = [[*one.box.center, one.box.width, one.box.height, one.score] for one in detections]
        array = np.array(rows, np.float32).reshape(-1, 5)
        usable = np.flatnonzero(np.isfinite(array).all(axis=1))
        self.tracker.update(_Boxes(array[usable, :4], array[usable, 4]))
        identities = [0] * len(detections)
        # Tracks of a single detection are among these; `update` returns confirmed ones only.
        for track in self.tracker.tracked_stracks:
            if track.frame_id == self.tracker.frame_id:
                identities[usable[int(track.idx)]] = self._number(track.track_id)
        return [identity or self._new() for identity in identities]

    def _number(self, track_id: int) -> int:
        if track_id not in self.numbers:
            self.numbers[track_id] = self._new()
        return self.numbers[track_id]

    def _new(self) -> int:
        self.count += 1
        return self.count
