"""Identities of people in simulated clips, and reprojection of bodies placed in the clip's camera.

    python -m benchmarks.tracking [--clips 10] [--frames 300] [--annotations FILE.npz ...]

IDF1 (Ristani et al., 2016) is the F1 score of boxes with the right identity, with the best
assignment of found to true people. Boxes match from an intersection over union of 0.5. A person of
whom less than a quarter is visible counts neither as missed nor as wrong.
"""

import argparse
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from benchmarks.walkers import (
    CAMERA,
    FPS,
    HEIGHT,
    WIDTH,
    Estimate,
    Walker,
    estimates,
    installed_body,
    read_clip,
    walkers,
)
from human_models.body import BodyModel
from human_models.joints import JOINT_PARTS
from main.motion.camera import PELVIS, Clip, ClipCamera, place_bodies
from main.motion.rows import FinalRows, RawRows
from main.motion.stitch import stitch
from main.motion.trajectories import Smoothing, build_trajectories
from main.pipeline.detection import Detection
from main.pipeline.stages import EstimatedFrame, EstimatedPerson, Tracker, place_people
from utils.camera import Box, intersection_over_union

HEIGHTS_PX: Final = (250, 350, 450, 600, HEIGHT)
"""Heights of people in the image, by which distances are grouped."""


class Score(NamedTuple):
    """Numbers of boxes by identification, and of changes of a true person's identity."""

    right: int
    wrong: int
    missed: int
    switches: int

    def __add__(self, other: "Score") -> "Score":  # type: ignore[override]
        return Score(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def idf1(self) -> float:
        return 2 * self.right / max(2 * self.right + self.wrong + self.missed, 1)


def identity_score(rows: RawRows | FinalRows, people: list[Walker]) -> Score:
    """The counts of IDF1, and switches as in CLEAR MOT, where matches that still fit are kept."""
    together: Counter[tuple[int, int]] = Counter()
    demanded, found, switches = 0, 0, 0
    last: dict[int, int] = {}
    identities_of, boxes = rows.column(rows.identity), rows.column("box_xywh")
    for frame, mine in rows.by_frame():
        share = np.array([(1 - one.covered[frame]) * one.in_image[frame] for one in people])
        table = intersection_over_union(np.stack([one.boxes[frame] for one in people]), boxes[mine])
        numbers = identities_of[mine].tolist()
        kept = np.array([[last.get(k) == number for number in numbers] for k in range(len(people))])
        for true, ours in zip(
            *linear_sum_assignment(-table - (kept & (table >= 0.5))), strict=True
        ):
            if table[true, ours] < 0.5:
                continue
            identity = numbers[ours]
            if share[true] < 0.25:
                found -= 1
                continue
            together[int(true), identity] += 1
            switches += last.get(int(true), identity) != identity
            last[int(true)] = identity
        found += len(mine)
    for one in people:
        demanded += int(((1 - one.covered) * one.in_image >= 0.25).sum())
    identities = sorted({identity for _, identity in together})
    table = np.array([[together[k, i] for i in identities] for k in range(len(people))])
    right = int(table[linear_sum_assignment(-table)].sum())
    return Score(right, found - right, demanded - right, switches)


def fill_rows(
    rows: RawRows,
    seen: list[Estimate],
    frames: int,
    camera: ClipCamera = CAMERA,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> None:
    """Track the estimates of a clip, place them in its camera and write rows, as in inference."""
    tracker = Tracker(FPS)
    of_frame: dict[int, list[Estimate]] = {}
    for one in seen:
        of_frame.setdefault(one.frame, []).append(one)

    def tracked() -> Iterator[EstimatedFrame]:
        for frame in range(frames):
            present = of_frame.get(frame, [])
            boxes = [Detection(Box(*one.person.box_xywh.tolist()), one.score) for one in present]
            people = zip(tracker(boxes), present, strict=True)
            yield EstimatedFrame(
                frame, [EstimatedPerson(track, one.score, one.person) for track, one in people]
            )

    place_people(tracked(), Clip(camera, size, FPS), rows)


def clip_of(camera: ClipCamera) -> Clip:
    return Clip(camera, (WIDTH, HEIGHT), FPS)


def track_clips(body: BodyModel, files: list[Path], clips: int, frames: int, seed: int) -> None:
    total = {"boxes alone": Score(0, 0, 0, 0), "stitched": Score(0, 0, 0, 0)}
    seconds = 0.0
    for clip in range(len(files) or clips):
        rng, camera = np.random.default_rng((seed, clip)), CAMERA
        if files:
            people, camera, frames = read_clip(files[clip], body)
        else:
            people = walkers(body, rng, 2 + clip % 3, frames)
        with tempfile.TemporaryDirectory() as folder:
            raw, final = RawRows(Path(folder)), FinalRows(Path(folder))
            fill_rows(raw, estimates(body, rng, people, camera), frames, camera)
            before = identity_score(raw, people)
            start = time.perf_counter()
            stitched = stitch(raw, camera, FPS)
            seconds += time.perf_counter() - start
            build_trajectories(
                raw, raw, stitched, clip_of(camera), body, Smoothing().times(0), final
            )
            after = identity_score(final, people)
            raw.close()
            final.close()
        for name, score in (("boxes alone", before), ("stitched", after)):
            total[name] += score
        print(
            f"clip {clip:2d}, {len(people)} people: IDF1 {before.idf1:.3f} -> {after.idf1:.3f}, "
            f"switches {before.switches} -> {after.switches}"
        )
    for name, score in total.items():
        print(f"{name:12} IDF1 {score.idf1:.3f}, {score.switches} switches")
    print(f"stitching: {1e3 * seconds / (len(files) or clips) / frames:.2f} ms a frame")


def match_clips(body: BodyModel, clips: int, frames: int, seed: int) -> None:
    """Compare projections in the clip's camera with those in the crops, and depths with the truth.

    People stay inside the image.
    """
    seen, truth = [], []
    for clip in range(clips):
        rng = np.random.default_rng((seed, clip, 2))
        people = walkers(body, rng, 3, frames, crossing=False)
        for one in estimates(body, rng, people):
            seen.append(one.person)
            truth.append(people[one.walker].joints[one.frame, PELVIS, 2])
    names = ("global_orient", "transl", "joints_3d_m", "joints_2d_px", "princpt")
    given = {name: np.stack([getattr(person, name) for person in seen]) for name in names}
    start = time.perf_counter()
    placed = place_bodies(**given, camera=CAMERA)
    milliseconds = 1e3 * (time.perf_counter() - start) / len(seen)
    seen_px = given["joints_2d_px"]
    height = np.ptp(seen_px[..., 1], axis=1)
    distance = np.linalg.norm(CAMERA.project(placed.joints_3d_m) - seen_px, axis=-1)
    for low, high in ((0, HEIGHT), *itertools.pairwise(HEIGHTS_PX)):
        those = distance[(height >= low) & (height < high)]
        if those.size:
            print(
                f"people of {low:3d} to {high:3d} px match their crops to {np.median(those):.2f} "
                f"px, the body alone to {np.median(those[:, JOINT_PARTS['body']]):.2f}"
            )
    depth_error = float(np.abs(placed.joints_3d_m[:, PELVIS, 2] / truth - 1).mean())
    print(f"depth error {100 * depth_error:.2f} %; placing: {milliseconds:.2f} ms a row")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    help_text = "rendered clips instead of simulated ones: files of main.synthesize --video"
    parser.add_argument("--annotations", type=Path, nargs="+", default=[], help=help_text)
    arguments = parser.parse_args()
    body = installed_body()
    track_clips(body, arguments.annotations, arguments.clips, arguments.frames, arguments.seed)
    match_clips(body, arguments.clips, arguments.frames // 5, arguments.seed)


if __name__ == "__main__":
    main()
