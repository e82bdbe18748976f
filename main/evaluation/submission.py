"""Submissions to test servers: estimates of all people in a test split, written to a zip.

The steps are generators: rows of HumanData, or images -> crops of people -> predictions in batches
-> pickles in the zip. The zip is then checked.
"""

import logging
import pickle
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch

from datasets.cache import InstanceTable, open_dataset
from datasets.sample import body_box, read_pixels
from datasets.sources import find_source
from human_models.files import STAND_IN_NAME
from main.evaluation.servers import FOLDER, Prediction, Record, Server, check_submission
from main.pipeline.detection import Detector, Detectors
from main.pipeline.estimator import Estimator, PersonCrop
from main.pipeline.model_files import find_weights
from main.pipeline.options import DetectorName
from models.smplest_x import body_parameters
from utils.camera import Box, Camera, crop_person, project
from utils.errors import UserError
from utils.files import ROOT, atomic_path, path_within, require_output
from utils.image import list_images
from utils.iteration import prefetch, with_progress

log = logging.getLogger(__name__)

READ_AHEAD: Final = 32
"""Number of crops that are made in advance of the network."""
FINDINGS_STATUS: Final = 1
"""Exit status if the check finds errors."""


@dataclass(frozen=True)
class SubmissionOptions:
    """Network, images and server of a submission; see `main.submit --help`.

    Raises:
        UserError: the options contradict each other.
    """

    server: Server
    output: Path
    model_dir: str
    checkpoint_id: str | None = None
    images: Path | None = None
    boxes: Path | None = None
    detector: DetectorName = "auto"
    device: str = "auto"
    precision: str = "fp32"
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.output.suffix != ".zip":
            raise UserError(
                f"--output {self.output}: servers accept only .zip files; end the name in .zip"
            )
        if self.boxes is not None and self.images is None:
            raise UserError("--boxes needs --images DIR, the folder of the numbered images")


class CroppedPerson(NamedTuple):
    """A person in an image, with the crop for the network."""

    image_path: Path
    image_size: tuple[int, int]
    """Width and height in pixels."""
    crop: PersonCrop


def submit(options: SubmissionOptions) -> int:
    """Estimate all people in the test split, write the zip and check it; return the exit status.

    Raises:
        UserError: as `write_submission`; or an input file is missing or wrong.
    """
    server = options.server
    require_output(options.output)
    estimator = Estimator.load(
        str(find_weights(options.model_dir, options.checkpoint_id).weights),
        device=options.device,
        precision=options.precision,
        overrides=options.overrides,
    )
    if estimator.body_name == STAND_IN_NAME:
        log.warning(
            "made with the %s, but the server evaluates SMPL-X; install the files of SMPL-X",
            STAND_IN_NAME,
        )
    people = _cropped_people(options, estimator)
    with closing(prefetch(people, READ_AHEAD)) as ahead:
        predicted = predictions(
            ahead,
            estimator,
            estimator.config.test.test_batch_size,
            want_vertices=not server.takes_parameters,
        )
        write_submission(options.output, predicted, server)
    return report_check(options.output, server)


def report_check(path: Path, server: Server) -> int:
    """Check a submission and log the findings; return the exit status."""
    check = check_submission(path, server)
    for finding in check.findings:
        log.log(logging.ERROR if finding.level == "error" else logging.WARNING, "%s", finding)
    errors, warnings = check.errors, len(check.findings) - check.errors
    counts = f"{check.images} images, {check.people} people, {errors} errors, {warnings} warnings"
    log.info("%s for %s: %s", path, server.name, counts)
    return FINDINGS_STATUS if errors else 0


def _cropped_people(options: SubmissionOptions, estimator: Estimator) -> Iterator[CroppedPerson]:
    if options.images is not None:
        images = images_under(options.images)
        config = estimator.config.inference.detection
        detectors = Detectors(options.boxes, options.detector, config, estimator.device)
        return people_of_images(images, detectors.for_source(options.images), estimator)
    data = estimator.config.data
    source = find_source(options.server.source, data)
    table = open_dataset(
        source._replace(test_interval=1),  # servers need all people
        "test",
        ROOT / data.data_dir,
    )
    return people_of_table(table, ROOT / data.data_dir / "img" / source.images, estimator)


def people_of_table(
    table: InstanceTable, image_folder: Path, estimator: Estimator
) -> Iterator[CroppedPerson]:
    """Crops of all rows, as in a benchmark.

    Raises:
        UserError: an image cannot be read, or a box has no area inside its image.
    """
    config = estimator.config
    path, image = None, np.zeros((0, 0, 3), np.uint8)
    for instance in with_progress(table, len(table), "people"):
        image_path = path_within(image_folder, instance.image_path)
        if path != image_path:  # rows of the same image are consecutive
            path = image_path
            image = read_pixels(path)
        height, width = image.shape[:2]
        box = body_box(instance, width, height, config)
        pixels = crop_person(image, box, config.model.input_body_shape)
        detected = Box(*instance.body_box.tolist())
        yield CroppedPerson(path, (width, height), PersonCrop(pixels, box, detected))


def images_under(folder: Path) -> list[Path]:
    """All images of a folder and its subfolders, in natural order within each folder.

    Raises:
        UserError: the folder does not exist or contains no image.
    """
    folders = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    images = [image for each in folders if each.is_dir() for image in list_images(each.resolve())]
    if not images:
        raise UserError(f"{folder}: no images in it; give the folder of the test images")
    return images


def people_of_images(
    images: Sequence[Path], detector: Detector, estimator: Estimator
) -> Iterator[CroppedPerson]:
    """Crops of all detected people; the detector gets the index of the image and the image.

    Raises:
        UserError: an image cannot be read.
    """
    empty = outside = 0
    for index, path in enumerate(with_progress(images, len(images), "images")):
        image = read_pixels(path)
        height, width = image.shape[:2]
        detections = detector(index, image)
        crops = [estimator.crop(image, detection.box) for detection in detections]
        empty += not crops
        outside += crops.count(None)
        yield from (CroppedPerson(path, (width, height), crop) for crop in crops if crop)
    if empty:
        log.info("nobody was found in %d of %d images", empty, len(images))
    if outside:
        log.warning("%d boxes outside their image were left out", outside)


def predictions(
    people: Iterable[CroppedPerson], estimator: Estimator, batch_size: int, *, want_vertices: bool
) -> Iterator[Prediction]:
    """Estimates of the people, in the same order.

    People with NaN or infinity in their estimates are left out, with a warning for each.
    """
    remaining = iter(people)
    while batch := list(islice(remaining, batch_size)):
        for predicted in _predict(batch, estimator, want_vertices=want_vertices):
            values = (predicted.joints_3d_m, predicted.joints_2d_px, *predicted.parameters.values())
            if all(np.isfinite(value).all() for value in values):
                yield predicted
            else:
                log.warning(
                    "%s: a person is left out, because the network outputs NaN or infinity",
                    predicted.image_path,
                )


@torch.inference_mode()
def _predict(
    people: Sequence[CroppedPerson], estimator: Estimator, *, want_vertices: bool
) -> list[Prediction]:
    config = estimator.config.model
    crops = [person.crop for person in people]
    parameters = body_parameters(estimator.heads(crops), config)._asdict()
    # Servers need joints that are not among the 137 of `Estimator.estimate`.
    body = estimator.body(**parameters, want_vertices=want_vertices)
    cameras = [
        Camera(config.focal, config.princpt).in_image(crop.box, config.input_body_shape)
        for crop in crops
    ]
    focal = body.joints.new_tensor([camera.focal for camera in cameras])[:, None]
    princpt = body.joints.new_tensor([camera.princpt for camera in cameras])[:, None]
    joints_2d = project(body.joints, focal, princpt).cpu().numpy()
    joints = body.joints.cpu().numpy()
    vertices = None if body.vertices is None else body.vertices.cpu().numpy()
    rows = {name: values.cpu().numpy() for name, values in parameters.items()}
    return [
        Prediction(
            person.image_path,
            person.image_size,
            parameters={name: values[i] for name, values in rows.items()},
            joints_2d_px=joints_2d[i],
            joints_3d_m=joints[i],
            vertices_m=None if vertices is None else vertices[i],
        )
        for i, person in enumerate(people)
    ]


def person_name(stem: str, k: int) -> str:
    """File name of the k-th person (from 0) of an image with this stem."""
    return f"{stem}_personId_{k}.pkl"


def pickled(record: Record) -> bytes:
    """A pickle that also NumPy 1 can read.

    The servers' tools use Python 3.8, whose NumPy has no `numpy._core`. In protocol 3 the name of a
    function is plain text before the numbers of the first array.
    """
    return pickle.dumps(record, protocol=3).replace(b"cnumpy._core.", b"cnumpy.core.", 1)


def write_submission(path: Path, people: Iterable[Prediction], server: Server) -> None:
    """Write the zip person by person; the people of an image are numbered from 0.

    Raises:
        UserError: there is nobody, the name or size of an image does not fit the server, or two
            images have the same name for the server.
    """
    images: dict[str, Path] = {}
    counts: Counter[str] = Counter()
    with atomic_path(path) as partial_path:
        with zipfile.ZipFile(partial_path, "w", zipfile.ZIP_DEFLATED) as archive:
            for person in people:
                stem = server.stem(person.image_path)
                other = images.setdefault(stem, person.image_path)
                if other != person.image_path:
                    raise UserError(
                        f"{person.image_path} and {other} are both '{stem}' for the server; "
                        "leave one out"
                    )
                name = person_name(stem, counts[stem])
                counts[stem] += 1
                archive.writestr(f"{FOLDER}/{name}", pickled(server.record(person)))
        if not counts:
            raise UserError("nobody was found; try --set inference.detection.conf=0.3, or --boxes")
