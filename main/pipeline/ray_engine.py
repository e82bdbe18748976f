"""Many clips on Ray (docs.ray.io), here or on a cluster: an actor per model, a task per clip.

Ray starts an actor again that dies, and gives it its clip again, two more times. A clip's folder of
results gets its name when it is whole, so there is one whatever was killed and when. All machines
see the project's folder, clips and output at the same paths.
"""

import logging
import os
from collections.abc import Generator, Sequence
from itertools import chain
from types import ModuleType
from typing import Any, Final

from main.pipeline.clips import ClipReport, Job, process_job, report_of_failure
from main.pipeline.options import InferenceOptions
from main.pipeline.pipeline import Tools
from utils.devices import BrokenDeviceError
from utils.errors import UserError, first_line
from utils.files import ROOT

log = logging.getLogger(__name__)

_RETRIES: Final = 2
_CORES: Final = 2
"""Of a worker without a GPU, where --workers says nothing: the network's, and all else's."""

_SETTINGS: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no statistics of use are sent
    "RAY_raylet_start_wait_time_s": "300",  # a busy machine takes longer than Ray's 60 s
}


class ClipWorker:
    """Holds a model; Ray makes an actor of it."""

    def __init__(self, options: InferenceOptions, folder: str) -> None:
        os.chdir(folder)  # where the command line's paths count from
        self.options = options
        self.tools: Tools | None = None

    def load(self) -> str | None:
        """Get ready; what is wrong, if anything is."""
        try:
            self.tools = Tools.load(self.options)
        except UserError as error:
            return str(error)
        return None

    def process(self, job: Job) -> ClipReport:
        if self.tools is None:  # this actor has died and been started again
            self.tools = Tools.load(self.options)
        try:
            return process_job(job, self.tools)
        except BrokenDeviceError:
            log.exception("%s", job.label)
            os._exit(1)  # Ray starts the actor again, in a process that can use the device


def ray_reports(
    jobs: Sequence[Job], options: InferenceOptions, workers: int | None
) -> Generator[ClipReport, None, None]:
    """Process clips by Ray's workers and give their reports as they come.

    Raises:
        UserError: Ray is not installed, there are fewer GPUs than `workers`, or no model can be
            loaded.
    """
    ray = _import_ray()
    ray.init(
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
        include_dashboard=False,
        log_to_driver=log.isEnabledFor(logging.DEBUG),
        logging_level=logging.WARNING,
    )
    try:
        actors = _start_actors(ray, options, workers, len(jobs))
        log.info("%d workers of Ray", len(actors))
        yield from _share_out(ray, actors, jobs)
    finally:
        ray.shutdown()


def _import_ray() -> ModuleType:
    for setting, value in _SETTINGS.items():
        os.environ.setdefault(setting, value)
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise UserError(
            "--engine ray needs Ray: .venv/bin/python -m pip install -r requirements-ray.txt"
        ) from None
    return ray


def _start_actors(
    ray: ModuleType, options: InferenceOptions, workers: int | None, most: int
) -> list[Any]:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    use_gpus = options.device == "auto" or options.device.startswith("cuda")
    gpus = [int(node.get("GPU", 0)) for node in nodes] if use_gpus else []
    cores = [node.get("CPU", 0) for node in nodes]
    if sum(gpus):
        workers = workers or sum(gpus)
        if workers > sum(gpus):
            raise UserError(f"--workers {workers}: there are {sum(gpus)} GPUs, one per worker")
        share = min(c / g for c, g in zip(cores, gpus, strict=True) if g)
        resources = {"num_gpus": 1, "num_cpus": _whole(share)}
    else:
        workers = workers or max(1, sum(int(count) // _CORES for count in cores))
        resources = {"num_cpus": cores_per_worker(cores, workers)}
    actor = ray.remote(max_restarts=-1, max_task_retries=_RETRIES, **resources)(ClipWorker)
    return [actor.remote(options, os.getcwd()) for _ in range(min(workers, most))]  # noqa: PTH109


def cores_per_worker(cores: Sequence[float], workers: int) -> float:
    """The most cores that each worker can have where machines have so many."""
    sizes = chain(range(int(max(cores)), 0, -1), (0.5**k for k in range(1, 20)))
    return next(size for size in sizes if sum(count // size for count in cores) >= workers)


def _whole(share: float) -> float:
    return float(int(share)) if share >= 1 else share


def _share_out(
    ray: ModuleType, actors: Sequence[Any], jobs: Sequence[Job]
) -> Generator[ClipReport, None, None]:
    """Each actor loads, then has one clip at a time, so a slow one keeps nothing from others."""
    waiting = iter(jobs)
    running: dict[Any, tuple[Any, Job | None]] = {
        actor.load.remote(): (actor, None) for actor in actors
    }
    while running:
        (done,), _ = ray.wait(list(running), num_returns=1)
        actor, job = running.pop(done)
        try:
            outcome = ray.get(done)
        except ray.exceptions.RayError as error:
            if job is None:
                raise UserError(f"a worker of Ray cannot start: {first_line(error)}") from None
            outcome = report_of_failure(job, UserError(_what_happened(ray, error)))
        if job is not None:
            yield outcome
        elif outcome is not None:
            raise UserError(outcome)
        following = next(waiting, None)
        if following is not None:
            running[actor.process.remote(following)] = (actor, following)


def _what_happened(ray: ModuleType, error: Exception) -> str:
    if isinstance(error, ray.exceptions.RayTaskError):
        return first_line(error.cause)
    return f"its worker died, {_RETRIES + 1} times"
