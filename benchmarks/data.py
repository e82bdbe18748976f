"""Cost of a training sample relative to decoding its image: `python -m benchmarks.data`.

The image is a 1920x1080 JPEG with a person of about half its height. Everything runs in one thread,
and candidates are timed alternately, so that other load affects them equally. Claim: a sample takes
at most 1.5 times as long as cv2.imread alone (median of ratios).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from configs.reader import load_config
from configs.schema import Config
from datasets.instances import Instance
from datasets.sample import read_pixels, training_sample
from datasets.targets import draw_augmentation, training_targets
from utils.camera import Box, crop_person, image_to_crop, person_box

_WIDTH, _HEIGHT = 1920, 1080
_MOST = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--config", type=Path, default=Path("configs/config_smplest_x_h.py"))
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    config = load_config(arguments.config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.jpg"
        kilobytes = write_photograph(path) / 1000
        milliseconds = interleaved(steps(path, config), arguments.rounds)
    print(
        f"python -m benchmarks.data --rounds {arguments.rounds} --config {arguments.config}\n"
        f"{_WIDTH}x{_HEIGHT}, {kilobytes:.0f} kB, one thread, OpenCV {cv2.__version__}"
    )
    whole = milliseconds["cv2.imread"]
    for name, times in milliseconds.items():
        ratio = statistics.median(own / base for own, base in zip(times, whole, strict=True))
        print(f"{name:18} {statistics.median(times):7.2f} ms   {ratio:5.3f} of cv2.imread's")
        if name == "training sample":
            print(f"{'':18} claim (at most {_MOST}): {'kept' if ratio <= _MOST else 'BROKEN'}")


def write_photograph(path: Path) -> int:
    """Write smooth shapes with grain, about as large as a photograph; returns the size in bytes."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (27, 48, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC)
    grain = generator.normal(scale=4.0, size=(_HEIGHT, _WIDTH, 1))
    image = np.clip(smooth + grain, 0, 255).astype(np.uint8)
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return path.stat().st_size


def make_instance(path: Path) -> Instance:
    """A row with all targets."""
    generator = np.random.default_rng(1)

    def normal(*shape: int) -> np.ndarray:
        return generator.normal(scale=0.3, size=shape).astype(np.float32)

    return Instance(
        row=0,
        image_path=path.name,
        image_size=(_WIDTH, _HEIGHT),
        body_box=np.array([860, 270, 230, 540], np.float32),
        joints_2d=normal(137, 2) * 200 + (960, 540),
        joints_3d=normal(137, 3),
        has_joints_3d=True,
        joints_valid=np.ones(137, np.float32),
        pose=normal(53, 3),
        pose_valid=np.ones(53, bool),
        betas=normal(10),
        expression=normal(10),
        expression_valid=True,
        transl=normal(3),
        hand_roots=normal(2, 3),
        gender="neutral",
        smpl_pose=np.zeros((24, 3), np.float32),
        smpl_betas=np.zeros(10, np.float32),
        has_smpl=False,
        vertices_path="",
    )


def steps(path: Path, config: Config) -> dict[str, Callable[[int], object]]:
    """The candidates, as functions of the sample's index, which determines its augmentation."""
    instance, model, ratio = make_instance(path), config.model, config.data.bbox_ratio
    image = read_pixels(path)
    box = person_box(Box(*instance.body_box.tolist()), _WIDTH, _HEIGHT, ratio=ratio * 0.833)
    assert box is not None

    def targets(index: int) -> None:
        augmentation = draw_augmentation(0, 0, index)
        to_crop = image_to_crop(box, model.input_body_shape, _WIDTH, augmentation.crop)
        training_targets(instance, augmentation, to_crop, model)

    return {
        "cv2.imread": lambda _: cv2.imread(str(path)),
        "training sample": lambda index: training_sample(
            instance, path.parent, config, draw_augmentation(0, 0, index)
        ),
        "- read and decode": lambda _: read_pixels(path),
        "- crop": lambda index: crop_person(
            image, box, model.input_body_shape, draw_augmentation(0, 0, index).crop
        ),
        "- targets": targets,
        "- draw": lambda index: draw_augmentation(0, 0, index),
    }


def interleaved(
    candidates: dict[str, Callable[[int], object]], rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of each candidate, round by round; the first three rounds warm up."""
    milliseconds: dict[str, list[float]] = {name: [] for name in candidates}
    for index in range(rounds + 3):
        for name, step in candidates.items():
            start = time.perf_counter()
            step(index)
            milliseconds[name].append(1000 * (time.perf_counter() - start))
    return {name: times[3:] for name, times in milliseconds.items()}


if __name__ == "__main__":
    main()
