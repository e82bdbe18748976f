"""Speed of inference on a video and of each of its stages, relative to the limit of the machine.

    python -m benchmarks.video [--model MODEL_DIR] [--seconds 60] [--people 1] [--memory]

demo/test_video.mp4 (720p, three people) is repeated to --seconds. Each stage runs alone over
--frames of it, with all cores, which gives its rate in frames per second and its CPU time per
frame. Because the speed of machines varies, stages are timed before and after the whole inference.
The limit is the smaller of the slowest stage's rate and cores / (CPU time per frame of all stages).
--memory only measures the peak memory of inference on this video and on one ten times as long. The
machine must be idle.
"""

import argparse
import itertools
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import av
import numpy as np
import torch

from benchmarks.checkpoint import memory_bytes
from benchmarks.inference import Cost, cost
from main.motion.rows import FinalRows, RawRows
from main.motion.stitch import stitch
from main.motion.trajectories import build_trajectories, pose_vertices
from main.pipeline.estimator import PersonCrop
from main.pipeline.options import InferenceOptions
from main.pipeline.overlay import PosedPerson
from main.pipeline.pipeline import Tools, describe_clip, process_clip, smoothing_of
from main.pipeline.stages import (
    Tracker,
    batches,
    crop_people,
    detect_people,
    estimate_people,
    place_people,
    track_people,
)
from models.smplest_x import HeadOutputs
from utils.files import ROOT
from utils.iteration import parallel_map, prefetch
from utils.source import Frame, open_source
from utils.video_write import VideoWriter

DEMO: Final = ROOT / "demo" / "test_video.mp4"
REPEATS: Final = 3


def repeated_demo(folder: Path, seconds: float, people: int) -> Path:
    """Repeat the demo video and its boxes; packets are copied without encoding."""
    path = folder / f"demo_{seconds:g}_s.mp4"
    with av.open(str(DEMO)) as source:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        times = [(packet.pts, packet.dts) for packet in packets]
        length = sum(packet.duration for packet in packets)
        count = round(seconds * float(stream.average_rate))
        with av.open(str(path), "w") as target:
            copy = target.add_stream_from_template(stream)
            for turn, k in (divmod(k, len(packets)) for k in range(count)):
                packets[k].pts, packets[k].dts = (time + turn * length for time in times[k])
                packets[k].stream = copy
                target.mux(packets[k])
    boxes = json.loads(DEMO.with_suffix(".boxes.json").read_text())
    boxes = {k: boxes.get(str(k % len(packets)), [])[:people] for k in range(count)}
    path.with_suffix(".boxes.json").write_text(json.dumps(boxes))
    return path


def frame_cost(frames: int, work: Callable[[], object]) -> Cost:
    """Cost per frame: the median of several repetitions."""
    costs = [cost(work) for _ in range(REPEATS)]
    return Cost(*(statistics.median(times) / frames for times in zip(*costs, strict=True)))


def exhaust(items: Iterable[object]) -> None:
    for _ in items:
        pass


def stage_costs(
    tools: Tools, cores: int, path: Path, folder: Path, count: int
) -> Iterator[tuple[str, Cost]]:
    """Cost of each stage alone over the first frames, given the results of earlier stages."""
    estimator, workers = tools.estimator, tools.workers
    with open_source(path) as media:
        clip, smoothing = describe_clip(media, tools.options), smoothing_of(media, tools.options)
        frames = list(itertools.islice(media, count))
        count = len(frames)
        readings = 2  # the video is decoded to estimate and again to draw
        decoded = frame_cost(count, lambda: exhaust(itertools.islice(media, count)))
        yield "decode, twice", Cost(*(readings * value for value in decoded))

    detector = tools.detectors.for_source(path)
    yield "detect", frame_cost(count, lambda: [detector(one.index, one.image) for one in frames])
    found = [detector(one.index, one.image) for one in frames]

    pairs = [(frame, one) for frame, many in zip(frames, found, strict=True) for one in many]
    yield "crop", frame_cost(count, lambda: [estimator.crop(f.image, d.box) for f, d in pairs])
    tracked = track_people(detect_people(frames, detector), Tracker(clip.fps))
    cropped = list(crop_people(tracked, estimator))
    inputs = [batch.crops for batch in batches(cropped, tools.batch_size) if batch.crops]

    def network(crops: list[PersonCrop]) -> HeadOutputs:
        torch.set_num_threads(max(1, cores // workers))
        return estimator.heads(crops)

    outputs = list(parallel_map(network, inputs, workers))
    yield "network", frame_cost(count, lambda: exhaust(parallel_map(network, inputs, workers)))

    estimated = list(estimate_people(cropped, estimator, tools.batch_size, workers))

    def people_of_clip(final: FinalRows) -> None:
        with closing(RawRows(folder)) as raw:
            place_people(estimated, clip, raw)
            stitched = stitch(raw, clip.camera, clip.fps)
            build_trajectories(raw, raw, stitched, clip, estimator.body, smoothing, final)

    rows = FinalRows(folder)
    people_of_clip(rows)

    def body(given: tuple[list[PersonCrop], HeadOutputs]) -> None:
        estimator.people(*given, want_vertices=False)

    def meshes() -> Iterator[np.ndarray]:
        torch.set_num_threads(max(1, cores // workers))
        for start in range(0, len(rows), 16):
            few = rows.take(np.arange(start, min(start + 16, len(rows))))
            yield pose_vertices(estimator.body, few)

    def all_bodies() -> None:
        exhaust(parallel_map(body, zip(inputs, outputs, strict=True), workers))
        exhaust(prefetch(meshes(), 1))

    yield "body, twice", frame_cost(count, all_bodies)

    def tracks() -> None:
        tracker = Tracker(clip.fps)
        for detections in found:
            tracker(detections)
        with closing(FinalRows(folder)) as final:
            people_of_clip(final)

    yield "tracks", frame_cost(count, tracks)

    yield from drawing_costs(tools, frames, rows, clip.fps, folder)
    rows.close()


def drawing_costs(
    tools: Tools, frames: list[Frame], rows: FinalRows, fps: float, folder: Path
) -> Iterator[tuple[str, Cost]]:
    """Cost of drawing people and of encoding frames."""
    renderer, count = tools.renderer, len(frames)
    posed = list(renderer.people(frames, rows, set(rows.column("person").tolist())))

    def draw(given: tuple[Frame, list[PosedPerson]]) -> np.ndarray:
        return renderer.draw(given[0].image, given[1], with_numbers=True)

    yield "draw", frame_cost(count, lambda: exhaust(parallel_map(draw, posed, tools.workers)))
    drawn = [draw(one) for one in posed]

    def encode() -> None:
        with VideoWriter(folder / "encoded.mp4", fps) as writer:
            for image in drawn:
                writer.write(image)

    yield "encode", frame_cost(count, encode)


def cores_of_others(work: Callable[[], object]) -> float:
    """Mean number of cores that other processes used while `work` ran."""

    def used() -> float:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        ticks = sum(map(int, fields)) - int(fields[3]) - int(fields[4])  # without idle and iowait
        return ticks / os.sysconf("SC_CLK_TCK")

    if not Path("/proc/stat").is_file():
        work()
        return float("nan")
    start, before, own = time.perf_counter(), used(), time.process_time()
    work()
    others = used() - before - (time.process_time() - own)
    return max(0.0, others / (time.perf_counter() - start))


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    path = repeated_demo(folder, arguments.seconds, arguments.people)
    tools = Tools.load(InferenceOptions(arguments.model, refine=False))
    cores = torch.get_num_threads()
    print(
        f"python -m benchmarks.video --model {arguments.model} --seconds {arguments.seconds:g} "
        f"--people {arguments.people}\n{cores} cores, torch {torch.__version__}; "
        "people: a file of boxes stands in for the detector"
    )
    before = dict(stage_costs(tools, cores, path, folder, arguments.frames))
    frames = 0

    def whole() -> None:
        nonlocal frames
        with open_source(path) as media:
            frames = process_clip(media, folder / "result_whole", tools).frames or 0

    costs: list[Cost] = []
    others = cores_of_others(lambda: costs.append(cost(whole)))
    wall_s, cpu_s = (value / frames for value in costs[0])
    after = dict(stage_costs(tools, cores, path, folder, arguments.frames))
    stages = {name: Cost(*(np.array(one) + after[name]) / 2) for name, one in before.items()}
    for name, one in stages.items():
        print(
            f"{name:14} {1 / one.wall_s:8.1f} frames/s alone {one.cpu_s * 1e3:8.2f} CPU ms a frame"
        )
    sum_s = sum(one.cpu_s for one in stages.values())
    slowest = min(1 / one.wall_s for one in stages.values())
    limit = min(slowest, cores / sum_s)
    print(
        f"{'sum':14} {slowest:8.1f} frames/s slowest {sum_s * 1e3:6.2f} CPU ms a frame\n"
        f"{'whole':14} {1 / wall_s:8.1f} frames/s       {cpu_s * 1e3:8.2f} CPU ms a frame "
        f"({frames} frames; others used {others:.2f} cores)\n"
        f"limit {limit:.1f} frames/s, share of it {1 / wall_s / limit:.2f}"
    )


def memory_mb(arguments: argparse.Namespace, folder: Path, seconds: float) -> dict[str, float]:
    """Peak resident memory of inference in a new process."""
    path = repeated_demo(folder, seconds, arguments.people)
    command = ["-m", "main.inference", arguments.model, str(path), "--output", str(folder)]
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stderr=subprocess.DEVNULL)
    most = {"VmRSS": 0.0, "RssAnon": 0.0, "RssFile": 0.0}
    while process.poll() is None:
        time.sleep(0.2)
        now = memory_bytes(process.pid)
        most = {name: max(peak, now.get(name, 0) / 2**20) for name, peak in most.items()}
    if process.returncode:
        raise SystemExit(f"inference failed; try: python {' '.join(command)}")
    return most


def measure_memory(arguments: argparse.Namespace, folder: Path) -> None:
    short, long = (memory_mb(arguments, folder, arguments.seconds * k) for k in (1, 10))
    for name in short:
        print(f"{name:8} {short[name]:7.0f} MB, ten times as long: {long[name]:7.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smplest_x_demo", metavar="MODEL_DIR")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--people", type=int, default=3, help="1 to 3")
    parser.add_argument("--frames", type=int, default=96, help="number of frames for stages")
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        work = measure_memory if arguments.memory else measure
        work(arguments, Path(folder))


if __name__ == "__main__":
    main()
