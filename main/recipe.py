"""Train the demo network in a given time: `python -m main.recipe [--minutes N] [flags]`.

The stages draw synthetic people, train the lifter on poses without pictures, train the encoder to
find joints, and train the whole network on the pictures. Then the network is written as a model
folder and evaluated, and its errors are measured for refinement. Each stage has a share of the
time. On a GPU the people are drawn while the lifter is trained. With `--from`, a trained network
skips the stages before the last and trains on new people for the rest of the time.

Everything is in one folder. Its `plan.json` lists the finished stages, and the same command
continues an interrupted run.
"""

import argparse
import logging
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from main.cli import command, command_parser
from utils.errors import UserError
from utils.files import CONFIG_NAME, OUTPUTS, ROOT

if TYPE_CHECKING:
    from datasets.sources import Split
    from main.training.recipes import Recipe

log = logging.getLogger(__name__)

NETWORK: Final = "smplest_x_demo"
"""Folder of the trained network, and its name."""
_SEEDS: Final = {"test": 99, "heldout": 77}
_NEW_SEED: Final = 9
_PER_MINUTE: Final = {"test": 50, "heldout": 100}
"""Number of people to draw per minute of the total time."""
_MOST: Final = {"test": 500, "heldout": 4000}
_FEWEST: Final = 48
"""Limits of the number of people in a set."""
_PEOPLE_PER_WORKER: Final = 200
"""For fewer people, another process is not worth the seconds that it takes to start."""
_FEWEST_POSES: Final = 250
_MOST_POSES: Final = 20_000
"""Limits of the number of poses that lifting starts with."""
_CERTAIN: Final = 0.8
"""Share of the people who could be drawn in the time left at the speed of the test split."""
_LEAST_END_S: Final = 45.0
_END: Final = 0.12
"""Share of the time for evaluation and weights; at least 45 s, at most a third of the time."""
_LEAST_STAGE_S: Final = 1.0


class Settings(NamedTuple):
    """Settings for one kind of device."""

    shares: dict[str, float]
    """When each stage should be over, as a share of the time before evaluation."""
    common: tuple[str, ...]
    keypoints: tuple[str, ...]
    lifting: tuple[str, ...]
    regression: tuple[str, ...]
    continued: tuple[str, ...]
    """Instead of `regression`, if the network has been trained before."""
    poses_per_minute: int
    """Poses for lifting per minute of the total time; each takes a millisecond."""


_CPU: Final = Settings(
    {"data": 0.25, "lifting": 0.45, "keypoints": 0.75, "regression": 1.0},
    ("train.num_thread=0", "train.save_iters=100", "train.warmup_iters=50"),
    ("train.train_batch_size=8", "train.lr=1.5e-3"),
    ("train.train_batch_size=128", "train.lr=1e-3", "train.lifting_samples=200_000"),
    ("train.train_batch_size=12", "train.lr=3e-4"),
    ("train.train_batch_size=16", "train.lr=1.2e-4"),
    250,
)
_GPU: Final = Settings(
    {"data": 0.3, "lifting": 0.3, "keypoints": 0.65, "regression": 1.0},
    (
        "train.precision='bf16'",
        "train.save_iters=1000",
        "train.print_iters=100",
        "train.warmup_iters=300",
    ),
    ("train.train_batch_size=256", "train.lr=2e-3"),
    ("train.train_batch_size=2048", "train.lr=1e-3", "train.lifting_samples=4_000_000"),
    ("train.train_batch_size=256", "train.lr=6e-4"),
    ("train.train_batch_size=256", "train.lr=3e-4"),
    2000,
)


class Plan:
    """The arguments of a run, its finished stages, and the time they took: its plan.json."""

    def __init__(self, folder: Path, asked: dict[str, Any]) -> None:
        """Raises UserError if the folder's plan has other arguments."""
        from utils.files import read_json

        self._path = folder / "plan.json"
        found = read_json(self._path, "plan") if self._path.is_file() else {}
        if found and (not isinstance(found, dict) or found.get("asked") != asked):
            raise UserError(
                f"{self._path} is of a run with other arguments than {asked}; "
                "give another --output, or delete the folder"
            )
        self._values: dict[str, Any] = {"asked": asked, "seconds": 0.0}
        self._values |= {kind: {} for kind in ("done", "limits", "people")}
        self._values |= found
        self._since = time.monotonic() - self._values["seconds"]
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Time of all starts; of a start that was killed, up to its last finished stage."""
        return time.monotonic() - self._since

    def is_done(self, stage: str) -> bool:
        return stage in self._values["done"]

    def done(self, stage: str, since: float) -> None:
        self._set("done", stage, round(self.seconds - since, 1))
        log.info("%s: %.0f s; %.0f s of all", stage, self.seconds - since, self.seconds)

    def once(self, kind: str, name: str, make: Callable[[], float]) -> float:
        """A number that `make` returns in the first start, and the same in later ones."""
        if name not in self._values[kind]:
            self._set(kind, name, make())
        number: float = self._values[kind][name]
        return number

    def _set(self, kind: str, name: str, value: float) -> None:
        import json

        from utils.files import atomic_path

        with self._lock, atomic_path(self._path) as partial:
            self._values[kind][name] = value
            self._values["seconds"] = round(self.seconds, 1)
            partial.write_text(json.dumps(self._values, indent=2) + "\n", encoding="utf-8")


class TimedTraining:
    """The stages of a run; finished ones are skipped."""

    def __init__(self, folder: Path, plan: Plan, asked: argparse.Namespace) -> None:
        """Raises UserError if the config or the network to start from cannot be used."""
        from configs.reader import load_config
        from main.pipeline.model_files import find_model
        from utils.devices import has_bf16_units, usable_cores

        if load_config(asked.config).model.lifter_config is None:
            raise UserError(
                f"--config {asked.config}: model.lifter_config is missing; use the demo network's"
            )
        self._start = None if asked.start is None else find_model(asked.start).weights.resolve()
        self._folder, self._plan, self._config, self._seed = folder, plan, asked.config, asked.seed
        self._minutes, self._device = asked.minutes, asked.device
        self._cores = usable_cores()
        whole = 60 * self._minutes
        self._time = whole - max(_END * whole, min(_LEAST_END_S, whole / 3))
        self._is_gpu = _is_gpu(self._device)
        self._settings = _GPU if self._is_gpu else _CPU
        self._common = self._settings.common
        if self._is_gpu:
            self._common += (f"train.num_thread={max(1, self._cores - 1)}",)
        elif has_bf16_units():
            self._common += ("train.precision='bf16'",)
        self._stop = threading.Event()

    def run(self) -> None:
        """Run the stages. Raises UserError as they do, and SystemExit if a signal ended one."""
        from main.training import REGRESSION

        if self._start is None:
            first, changes = self._pretrained(), self._settings.regression
        else:
            self._draw_people()
            first, changes = self._start, self._settings.continued
        begin = f"model.pretrained_model_path={str(first)!r}"
        trained = self._trained("regression", REGRESSION, *changes, begin)
        self._do_once("weights", lambda: self._write_network(trained))
        self._do_once("evaluation", self._evaluate)
        self._do_once("errors", self._measure_errors)

    def _pretrained(self) -> Path:
        """The weights that regression starts from, pre-trained while the people are drawn."""
        from main.training import KEYPOINTS, LIFTING

        none = "model.encoder_pretrained_model_path=None"
        # On a CPU one after the other, because both would use the same cores.
        with self._drawing() as drawn:
            if not self._is_gpu:
                drawn()
            more = self._settings.poses_per_minute * self._minutes
            poses = round(min(_MOST_POSES, _FEWEST_POSES + more))
            pool = f"train.lifting_poses={poses}"
            lifted = self._trained("lifting", LIFTING, *self._settings.lifting, none, pool)
            drawn()
        encoder = self._trained("keypoints", KEYPOINTS, *self._settings.keypoints, none)
        return self._joined(lifted, encoder.with_name("encoder.pth"))

    @property
    def network(self) -> Path:
        return self._folder / NETWORK

    def _do_once(self, stage: str, work: Callable[[], object]) -> None:
        """Do the work of a stage, unless an earlier start has finished it."""
        if not self._plan.is_done(stage):
            since = self._plan.seconds
            work()
            self._plan.done(stage, since)

    def _time_left(self, stage: str) -> float:
        """Seconds until the stage should be over."""
        return self._settings.shares[stage] * self._time - self._plan.seconds

    # ---- people

    @contextmanager
    def _drawing(self) -> Iterator[Callable[[], None]]:
        """Start drawing all people, and yield a function that waits until they are drawn."""
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(self._draw_people)
            try:
                yield done.result
            finally:
                self._stop.set()

    def _draw_people(self) -> None:
        import torch

        threads = torch.get_num_threads()
        self._do_once("data", self._draw_sets)
        torch.set_num_threads(threads)  # drawing sets it to one

    def _draw_sets(self) -> None:
        """Draw the test and held-out people, then as many for training as there is time for."""
        started = time.monotonic()
        count = self._draw("test", self._few("test"))
        per_s = count / (time.monotonic() - started) / self._workers(count)
        self._draw("heldout", self._few("heldout"))
        train = self._plan.once(
            "people", "train", lambda: _CERTAIN * per_s * self._cores * self._time_left("data")
        )
        self._draw("train", max(_FEWEST, 16 * round(train / 16)))

    def _few(self, kind: str) -> int:
        return min(_MOST[kind], max(_FEWEST, round(_PER_MINUTE[kind] * self._minutes)))

    def _workers(self, people: int) -> int:
        return min(self._cores, math.ceil(people / _PEOPLE_PER_WORKER))

    def _draw(self, kind: str, people: int) -> int:
        """Draw a set of people, unless it exists, and return their number."""
        from synthetic.production import SynthesisOptions, synthesize

        split: Split = "test" if kind == "test" else "train"
        seed = _SEEDS.get(kind, self._seed)
        options = SynthesisOptions("crops", "openpeople", split, seed, people, (192, 256))
        folder = self._folder / ("heldout" if kind == "heldout" else "data")
        if (folder / "annot" / f"openpeople_{split}.npz").is_file():
            return people
        for _ in synthesize(options, folder, self._workers(people)):
            if self._stop.is_set():
                raise SystemExit(128 + signal.SIGTERM)
        return people

    # ---- training

    def _trained(self, stage: str, recipe: "Recipe", *changes: str) -> Path:
        """The last snapshot of a stage, which is trained unless it is finished."""
        self._do_once(stage, lambda: self._train(stage, recipe, changes))
        (run,) = (self._folder / "runs").glob(f"*_{stage}_*")
        found = (run / "model_dump").glob("snapshot_[0-9]*.pth.tar")
        return max(found, key=lambda path: path.stat().st_mtime_ns)

    def _train(self, stage: str, recipe: "Recipe", changes: tuple[str, ...]) -> None:
        from main.training import RunOptions, StopRequest, run_training

        limit = self._plan.once(
            "limits", stage, lambda: max(_LEAST_STAGE_S, self._time_left(stage))
        )
        fixed = (
            f"data.data_dir={str(self._folder / 'data')!r}",
            f"train.time_limit_s={limit}",
            "train.end_epoch=1_000_000",
            "train.continue_train=True",
            "train.validate_on=()",
        )
        changes = (*self._common, *changes, *fixed)
        options = RunOptions(stage, self._config, self._folder / "runs", self._device, changes)
        stop = StopRequest()
        with _signals_restored():
            status = run_training(recipe, options, stop)
        if status or stop.requested:
            raise SystemExit(status or 128 + signal.SIGTERM)

    def _joined(self, lifted: Path, encoder: Path) -> Path:
        """The network with the lifter and heads of one stage and the encoder of the other."""
        from configs.reader import load_config
        from models.checkpoint import load_weights, save_safetensors
        from models.initialise import load_encoder, load_keypoint_head
        from models.smplest_x import SMPLestX

        path = self._folder / "joined.safetensors"
        if not path.is_file():
            network = SMPLestX(load_config(self._config).model)
            load_weights(network, lifted)
            load_encoder(network.encoder, encoder)
            assert network.keypoint_head is not None  # else there had been no lifting
            load_keypoint_head(network.keypoint_head, encoder)
            save_safetensors(network.state_dict(), path, {"source": "lifting and keypoints"})
        return path

    # ---- the end

    def _write_network(self, snapshot: Path) -> None:
        from configs.reader import load_config, save_config
        from main.pipeline.model_files import to_safetensors
        from utils.files import atomic_path

        with atomic_path(self.network) as partial:
            partial.mkdir()
            to_safetensors(str(snapshot), partial / f"{NETWORK}.safetensors", "fp16")
            refining = ("inference.refine='images'",)  # its errors are measured below
            save_config(load_config(self._config, refining), partial / CONFIG_NAME)

    def _evaluate(self) -> None:
        from main.evaluation.run import BenchmarkOptions, run_benchmarks

        run_benchmarks(
            BenchmarkOptions(
                str(self.network),
                datasets=("OpenPeople",),
                output=self._folder / "evaluation",
                worst_count=0,
                device=self._device,
                overrides=(f"data.data_dir={str(self._folder / 'data')!r}", self._common[0]),
            )
        )

    def _measure_errors(self) -> None:
        """Write errors.npz beside the weights, measured on people that no stage has seen."""
        command = [sys.executable, "-m", "benchmarks.refinement"]
        command += [str(self._folder / "heldout"), "--split", "train"]
        command += ["--model", str(self.network), "--write", str(self.network / "errors.npz")]
        done = subprocess.run(command, cwd=ROOT, check=False)
        if done.returncode:
            raise UserError(f"the network's errors could not be measured: {' '.join(command)}")


def _is_gpu(device: str) -> bool:
    from utils.devices import pick_device

    return pick_device(device).type != "cpu"


@contextmanager
def _signals_restored() -> Iterator[None]:
    """Training reacts to signals by saving; afterwards they end this process again."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def run(arguments: argparse.Namespace) -> None:
    from utils.files import exclusive

    if not 0 < arguments.minutes < math.inf:
        raise UserError(f"--minutes {arguments.minutes}: give a number above 0")
    if arguments.seed < 0 or arguments.seed in _SEEDS.values():
        raise UserError(
            f"--seed {arguments.seed}: give a number from 0, but not {_SEEDS['test']} or "
            f"{_SEEDS['heldout']}, which draw the people of the evaluation"
        )
    folder = arguments.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / "lock", f"another process trains in {folder}; wait until it ends"):
        names = ("minutes", "config", "start", "seed", "device")
        plan = Plan(folder, {name: getattr(arguments, name) for name in names})
        training = TimedTraining(folder, plan, arguments)
        training.run()
        log.info("%.1f minutes; network: %s", plan.seconds / 60, training.network)


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("recipe", "Train the demo network in a given time.")
    parser.add_argument("--minutes", type=float, default=12.0, help="total time (default: 12)")
    parser.add_argument(
        "--from",
        dest="start",
        metavar="MODEL_DIR",
        help="continue this network, with people of a --seed that it has not seen",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=_NEW_SEED,
        help=f"random seed of the training people (default: {_NEW_SEED}; the bundled network was "
        f"trained on those of seeds 1 to {_NEW_SEED - 1})",
    )
    parser.add_argument(
        "--config", default="config_smplest_x_demo.py", help="config of the network"
    )
    parser.add_argument("--output", type=Path, default=OUTPUTS / "recipe", help="the run's folder")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:1, mps or cpu")
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())
