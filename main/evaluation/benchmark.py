"""Evaluation of one network on one dataset: errors of every sample, and their means.

With several processes (torchrun), process r of n evaluates batches r, r + n, r + 2n and so on. The
batches are those of a single process, so results do not depend on the number of processes.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, default_collate

from configs.schema import Config, Protocol
from datasets.cache import InstanceTable, open_dataset
from datasets.humandata.writer import BODY_BOX_SCALE
from datasets.sample import EvaluationSample, evaluation_sample
from datasets.sources import Scans, Source
from human_models.body import BodyLibrary
from human_models.files import ModelFolder
from human_models.joints import POSE_PARTS, SIDES
from main.evaluation.metrics import (
    HAND_SET_METRICS,
    SMPLX_METRICS,
    Evaluator,
    MeanAndCount,
    Means,
    SampleErrors,
    Visibility,
    means_of,
)
from main.evaluation.worst import WorstSample, worst_of_all, worst_of_batch
from main.pipeline.estimator import Estimator
from utils.camera import intersection_over_union, project, scaled_boxes
from utils.devices import failing_together, gather_to_first, has_float64, world
from utils.errors import UserError, first_line
from utils.files import read_json
from utils.geometry import axis_angle_to_matrix
from utils.iteration import with_progress

_LEAST_OVERLAP: Final = 0.1
"""Least intersection over union of a detection and a person (as on AGORA's server)."""
_NORMALISED: Final = {"nmve_all": "mpvpe_all", "nmje_body": "mpjpe_body"}
"""Metrics of AGORA that divide an error by F1."""
_BENT_RAD: Final = np.deg2rad(20)
"""Mean rotation of a hand's joints, relative to the mean hand, from which the hand is bent."""

OneBox = Float[np.ndarray, "4"]
Boxes = Float[np.ndarray, "_ 4"]
"""x, y, width, height in pixels."""


class DetectionMatch(NamedTuple):
    """Assignment of detections to the people of a dataset."""

    boxes: dict[int, OneBox]
    """Detections by row of the dataset's table, padded like the boxes in the files."""
    missed: int
    false: int
    """Number of detections without a person, in images with people of the dataset."""

    @property
    def f1(self) -> float:
        return len(self.boxes) / (len(self.boxes) + 0.5 * (self.false + self.missed))

    def report(self, means: Means) -> dict[str, float | int]:
        """F1, counts, and the normalised errors (millimetres) of available metrics."""
        report: dict[str, float | int] = {
            "f1": self.f1,
            "found": len(self.boxes),
            "missed": self.missed,
            "false": self.false,
        }
        for name, metric in _NORMALISED.items():
            mean = means[metric]["mean"] if metric in means else None
            if mean is not None:
                report[name] = mean / self.f1
        return report


def read_detections(path: Path) -> dict[str, Boxes]:
    """Read a JSON file {"image path as in the dataset": [[x, y, width, height], ...]}, pixels.

    Raises:
        UserError: the file is missing or has another form.
    """
    content = read_json(path, "file of detections")
    try:
        boxes = {
            image: np.array(rows, np.float64).reshape(len(rows), 4)
            for image, rows in content.items()
        }
        if not all(np.isfinite(rows).all() and (rows[:, 2:] > 0).all() for rows in boxes.values()):
            raise ValueError("a box has no area")
        return boxes
    except (ValueError, TypeError, AttributeError) as error:
        form = '{"image path": [[x, y, width, height], ...]}'
        reason = first_line(error)
        raise UserError(f"--detections {path}: {reason}; its form must be {form}") from error


def match_detections(
    images: Sequence[str], body_boxes: Boxes, detections: Mapping[str, Boxes]
) -> DetectionMatch:
    """Assign detections to the people of each image, in the order of decreasing overlap.

    Args:
        images: path of every person's image, as in `detections`.
        body_boxes: box of every person, padded like the boxes in dataset files.

    Raises:
        UserError: no detection matches a person.
    """
    people: defaultdict[str, list[int]] = defaultdict(list)
    for place, image in enumerate(images):
        people[image].append(place)
    boxes: dict[int, OneBox] = {}
    false = 0
    for image, places in people.items():
        detected = detections.get(image, np.zeros((0, 4)))
        true = scaled_boxes(body_boxes[places], 1 / BODY_BOX_SCALE)
        pairs = _greedy_pairs(intersection_over_union(true, detected))
        padded = scaled_boxes(detected, BODY_BOX_SCALE)
        boxes |= {places[person]: padded[detection] for person, detection in pairs}
        false += len(detected) - len(pairs)
    if not boxes:
        raise UserError("--detections: no box matches a person; use the image paths of the dataset")
    return DetectionMatch(dict(sorted(boxes.items())), len(images) - len(boxes), false)


def _greedy_pairs(overlaps: Float[np.ndarray, "P D"]) -> list[tuple[int, int]]:
    """Pairs of person and detection, each of which is in at most one pair."""
    pairs: list[tuple[int, int]] = []
    remaining = overlaps.copy()
    while remaining.size and remaining.max() >= _LEAST_OVERLAP:
        person, detection = np.unravel_index(remaining.argmax(), remaining.shape)
        pairs.append((int(person), int(detection)))
        remaining[person], remaining[:, detection] = 0, 0
    return pairs


_SMPL_VERTICES: Final = 6890
_VERTICES: Final = (10475, _SMPL_VERTICES)


class BenchmarkResult(NamedTuple):
    """Errors of a dataset's samples, and their means."""

    means: dict[str, MeanAndCount]
    errors_mm: dict[str, Float[np.ndarray, " N"]]
    """Errors of each sample; NaN if a sample does not have the metric."""
    rows: Int[np.ndarray, " N"]
    """Row of each sample in the dataset's files, counted over all files of the split."""
    image_paths: list[str]
    truth: str
    """Kind of ground truth."""
    visible_only: bool
    """Whether only points inside the image were counted."""
    match: DetectionMatch | None
    """Assignment of detections, if they replaced the dataset's boxes."""
    breakdown: dict[str, MeanAndCount]
    """Means of `break_down`; empty with the published protocol."""
    worst: list[WorstSample]


def run_benchmark(
    source: Source,
    estimator: Estimator,
    protocol: Protocol,
    data_dir: Path,
    *,
    scans: Scans | None = None,
    detections: Mapping[str, Boxes] | None = None,
    worst_count: int = 0,
) -> BenchmarkResult | None:
    """Evaluate the test split of a dataset under `data_dir` (folders annot and img).

    Args:
        scans: meshes of scans that replace the bodies of the dataset's parameters.
        detections: boxes by image that replace the dataset's own; people without a matching
            detection are not evaluated.
        worst_count: number of worst samples to keep for pictures.

    Returns:
        None in all processes but the first.

    Raises:
        UserError: files of the dataset or of the body are missing or wrong.
    """
    with failing_together(source.name) as stop_if_another_failed:
        table = open_dataset(source, "test", data_dir, protocol=protocol)
        truth = "meshes of scans" if scans else _kind_of_truth(source, table)
        match = None
        if detections is not None:
            if source.interval("test") > 1:
                raise UserError(f"{source.name}: --detections needs its interval to be 1")
            images = [person.image_path for person in table]
            match = match_detections(images, table.columns["body_box"], detections)
        images_dir, folder = data_dir / "img" / source.images, estimator.bodies.folder
        samples = _EvaluationSamples(table, images_dir, estimator.config, folder, scans, match)
        evaluation = _Evaluation(source, estimator, protocol)
        share = evaluation.of_share(samples, worst_count, stop_if_another_failed)
    shares = gather_to_first(share)
    if shares is None:
        return None
    means, errors_mm = _merge_errors(shares)
    facing = {number: facing for share in shares for number, facing in share.facing.items()}
    predicted = torch.cat([facing[number] for number in sorted(facing)]).numpy()
    pose, known = (table.columns[name][samples.places] for name in ("pose", "pose_valid"))
    breakdown = {} if evaluation.published else break_down(errors_mm, predicted, pose, known)
    return BenchmarkResult(
        means,
        errors_mm,
        rows=np.array(table.columns["row"])[samples.places],
        image_paths=[table[place].image_path for place in samples.places],
        truth=truth,
        visible_only=evaluation.visible_only,
        match=match,
        breakdown=breakdown,
        worst=worst_of_all([share.worst for share in shares], worst_count),
    )


def _kind_of_truth(source: Source, table: InstanceTable) -> str:
    """Kind of ground truth in the dataset's rows.

    Raises:
        UserError: there is none.
    """
    if not len(table):
        raise UserError(f"{source.name}: no row of its test files can be used")
    if table[0].vertices_path:
        return "vertices"
    if table.columns["has_smpl"].any():
        return "SMPL parameters"
    if not table.columns["pose_valid"].any():
        raise UserError(f"{source.name}: its test files have no body parameters to compare with")
    return "hands" if source.hands_alone else "SMPL-X parameters"


def break_down(
    errors_mm: Mapping[str, Float[np.ndarray, " N"]],
    facing: Float[np.ndarray, "N 3"],
    pose: Float[np.ndarray, "N 53 3"],
    known: Bool[np.ndarray, "N 53"],
) -> dict[str, MeanAndCount]:
    """Means that overall averages hide, by the name shown on screen.

    "PA MPVPE (bent hands)" is the mean over hands whose joints are rotated by more than 20 degrees
    on average relative to the mean hand, in millimetres. "facing away, %" is the percentage of
    people whose predicted front is more than 90 degrees from the true one.

    Args:
        facing: predicted direction of each person's front, in the camera frame.
        pose: true rotations of `joints.POSE_JOINTS`, axis-angle in radians.
        known: which of these rotations are known.
    """
    of_hands = []
    for side in SIDES:
        errors, part = errors_mm.get(f"pa_mpvpe_{side[0]}_hand"), POSE_PARTS[f"{side}_hand"]
        if errors is not None:
            bent = np.linalg.norm(pose[:, part], axis=2).mean(1) > _BENT_RAD
            of_hands.append(errors[bent & known[:, part].all(1) & np.isfinite(errors)])
    true = axis_angle_to_matrix(torch.tensor(pose[:, 0]))[..., 2].numpy()
    away = 100.0 * ((facing * true).sum(1) < 0)[known[:, 0]]
    bent_hands = np.concatenate(of_hands) if of_hands else np.zeros(0)
    values = {"PA MPVPE (bent hands)": bent_hands, "facing away, %": away}
    return {
        name: {"mean": float(samples.mean()) if len(samples) else None, "count": len(samples)}
        for name, samples in values.items()
    }


class _EvaluationSamples(Dataset[EvaluationSample | UserError]):
    """The samples that the loader's workers read; each worker opens the body files.

    A UserError is returned as a value, because torch would put it into a traceback.
    """

    def __init__(
        self,
        table: InstanceTable,
        image_folder: Path,
        config: Config,
        folder: ModelFolder,
        scans: Scans | None,
        match: DetectionMatch | None,
    ) -> None:
        self.table, self.image_folder, self.config = table, image_folder, config
        self.bodies, self.scans = BodyLibrary(folder), scans
        self.places = list(match.boxes if match else range(len(table)))
        """Rows of the table that are evaluated."""
        self.detected = match.boxes if match else {}

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> EvaluationSample | UserError:
        place = self.places[index]
        person = self.table[place]
        if place in self.detected:
            person = person._replace(body_box=self.detected[place].astype(np.float32))
        try:
            sample = evaluation_sample(
                person, self.image_folder, self.config, self.bodies, self.scans
            )
        except UserError as error:
            return error
        mesh = sample["target_smplx_mesh_cam"]
        if mesh.shape not in [(count, 3) for count in _VERTICES] or not np.isfinite(mesh).all():
            return UserError(
                f"row {person.row} ('{person.image_path}'): the true mesh has shape {mesh.shape} "
                f"or values that are not finite; vertices of SMPL-X or SMPL are needed"
            )
        return sample


def _collate(samples: Sequence[EvaluationSample | UserError]) -> dict[str, Tensor] | UserError:
    """A batch, or the first error among its samples."""
    errors = [sample for sample in samples if isinstance(sample, UserError)]
    return errors[0] if errors else default_collate(list(samples))


class _Share(NamedTuple):
    """The results of one process, by number of batch."""

    errors: dict[int, dict[str, SampleErrors]]
    facing: dict[int, Float[Tensor, "B 3"]]
    """Predicted directions of the people's fronts, in the camera frame."""
    worst: list[WorstSample]


class _Evaluation:
    """A network and the protocol by which it is evaluated on one dataset."""

    def __init__(self, source: Source, estimator: Estimator, protocol: Protocol) -> None:
        self.estimator = estimator
        # Errors are computed in float64.
        is_wide = has_float64(estimator.device)
        self.device = estimator.device if is_wide else torch.device("cpu")
        self.evaluator = Evaluator(estimator.bodies.folder, protocol).to(self.device)
        self.metrics = HAND_SET_METRICS if source.hands_alone else SMPLX_METRICS
        # The published code also counts unknown hands and points outside the image.
        self.published = self.evaluator.published
        self.visible_only = source.visible_only and not self.published

    @torch.inference_mode()
    def of_share(
        self,
        samples: _EvaluationSamples,
        worst_count: int,
        stop_if_another_failed: Callable[[], None],
    ) -> _Share:
        """Evaluate every batch of this process."""
        here, config = world(), self.estimator.config
        rows = range(len(samples))
        batches = list(BatchSampler(rows, config.test.test_batch_size, drop_last=False))
        numbers = range(here.rank, len(batches), here.size)
        loader: Iterable[dict[str, Tensor] | UserError] = DataLoader(
            samples,
            batch_sampler=[batches[number] for number in numbers],
            num_workers=config.train.num_thread,
            collate_fn=_collate,
        )
        if here.is_first:
            loader = with_progress(loader, len(numbers), "batches")
        errors_by_batch: dict[int, dict[str, SampleErrors]] = {}
        worst: list[WorstSample] = []
        facing: dict[int, Float[Tensor, "B 3"]] = {}
        for number, batch in zip(numbers, loader, strict=True):
            stop_if_another_failed()
            if isinstance(batch, UserError):
                raise batch
            predicted, true, turned = self._meshes(batch)
            errors = self._errors(batch, predicted, true)
            hands_valid = _hands_valid(batch)
            pictures = batch["input_img"], predicted, true, hands_valid
            of_batch = worst_of_batch(worst_count, batches[number], errors, *pictures)
            worst = worst_of_all([worst, of_batch], worst_count)
            errors_by_batch[number] = {
                name: SampleErrors(error.cpu(), valid.cpu())
                for name, (error, valid) in errors.items()
            }
            facing[number] = axis_angle_to_matrix(turned.cpu())[..., 2]
        return _Share(errors_by_batch, facing, worst)

    def _meshes(
        self, batch: dict[str, Tensor]
    ) -> tuple[Float[Tensor, "B 10475 3"], Float[Tensor, "B V 3"], Float[Tensor, "B 3"]]:
        """Predicted and true meshes (metres), on the device for computing errors, and the predicted
        rotation of the root (axis-angle, radians)."""
        parameters, posed = self.estimator.predict(batch["input_img"], want_vertices=True)
        predicted = posed.vertices
        assert predicted is not None
        if not predicted.isfinite().all():
            rows = f"rows {int(batch['meta_img_id'][0])} to {int(batch['meta_img_id'][-1])}"
            raise UserError(f"{rows}: the network outputs NaN or infinity; use other weights")
        true = batch["target_smplx_mesh_cam"].to(self.device)
        return predicted.to(self.device), true, parameters.global_orient

    def _errors(
        self,
        batch: dict[str, Tensor],
        predicted: Float[Tensor, "B 10475 3"],
        true: Float[Tensor, "B V 3"],
    ) -> dict[str, SampleErrors]:
        if true.shape[1] == _SMPL_VERTICES:
            return self.evaluator.smpl(predicted, true)
        valid = _hands_valid(batch).to(self.device)
        if self.published:
            valid = torch.ones_like(valid)
        in_view = visibility(batch, self.device) if self.visible_only else None
        left, right = valid.unbind(1)
        return self.evaluator.smplx(
            predicted, true, left, right, only=self.metrics, in_view=in_view
        )


def _hands_valid(batch: dict[str, Tensor]) -> Bool[Tensor, "B 2"]:
    """Whether the truth contains the left and the right hand of each sample."""
    return torch.stack([batch[f"meta_{side}hand_valid"] != 0 for side in "lr"], dim=1)


def visibility(batch: dict[str, Tensor], device: torch.device) -> Visibility:
    """A function from true points to whether they project into the image."""
    focal, princpt, size = (
        batch[f"meta_{name}"].to(device)[:, None]
        for name in ("focal", "principal_pt", "image_size")
    )

    def in_view(points: Float[Tensor, "B N 3"]) -> Bool[Tensor, "B N"]:
        pixels = project(points, focal, princpt)
        return ((pixels > 0) & (pixels < size)).all(dim=-1)

    return in_view


def _merge_errors(
    shares: Sequence[_Share],
) -> tuple[dict[str, MeanAndCount], dict[str, Float[np.ndarray, " N"]]]:
    """Means over all processes, and errors of all samples in their order."""
    errors = {number: batch for share in shares for number, batch in share.errors.items()}
    batches = [errors[number] for number in sorted(errors)]
    errors_mm = {}
    for name in batches[0]:
        values = [batch[name].error_mm.where(batch[name].valid, torch.nan) for batch in batches]
        errors_mm[name] = torch.cat(values).numpy()
    return means_of(batches), errors_mm
