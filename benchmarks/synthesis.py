"""How fast one core draws synthetic people: `python -m benchmarks.synthesis`.

Crops (one person a picture, 192x256) and scenes (one to six people, 1280x720), with ground truth
and JPEG, nothing written. Rounds of both take turns, so that whatever else the machine does strikes
both; the best round is what an idle core does. Claims: 40 crops and 8 scenes a second.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import torch

from datasets.synthetic.pictures import (
    Studio,
    draw_crop,
    draw_scene,
    generator,
    plan_crop,
    plan_scene,
)

_CLAIMS = {"crops": 40, "scenes": 8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crops", type=int, default=64, help="a round")
    parser.add_argument("--scenes", type=int, default=8, help="a round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    studio = Studio("train")
    counts = {"crops": arguments.crops, "scenes": arguments.scenes}
    draw: dict[str, Callable[[range], None]] = {
        "crops": lambda indices: draw_batch(studio, plan_crop, draw_crop, indices, (256, 192), 16),
        "scenes": lambda indices: draw_batch(
            studio, plan_scene, draw_scene, indices, (720, 1280), 4
        ),
    }
    rates: dict[str, list[float]] = {kind: [] for kind in draw}
    for kind, count in counts.items():
        draw[kind](range(count))  # memory, caches of garments
    for number in range(1, arguments.rounds + 1):
        for kind, count in counts.items():
            start = time.process_time()
            draw[kind](range(number * count, (number + 1) * count))
            rates[kind].append(count / (time.process_time() - start))
    print(f"python -m benchmarks.synthesis --rounds {arguments.rounds}")
    for kind, measured in rates.items():
        print(
            f"{kind}: {max(measured):.1f} a second of one core at best, "
            f"median {statistics.median(measured):.1f}; ratio to the claim of {_CLAIMS[kind]}: "
            f"{max(measured) / _CLAIMS[kind]:.2f}"
        )


def draw_batch(studio, plan, draw, indices, shape, batch) -> None:  # type: ignore[no-untyped-def]
    """What a worker does, but for writing files."""
    for first in range(indices.start, indices.stop, batch):
        numbers = range(first, min(first + batch, indices.stop))
        plans = [plan(studio, generator(0, "train", index), shape) for index in numbers]
        figures = studio.figures.pose([one.parameters for each in plans for one in each.people])
        for each in plans:
            own, figures = figures[: len(each.people)], figures[len(each.people) :]
            draw(studio, each, own, shape)


if __name__ == "__main__":
    main()
