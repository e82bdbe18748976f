"""The people of a test split, found and estimated as the test servers want them.

Each step is a generator: rows of HumanData or images -> sightings -> predictions in batches.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from datasets.cache import InstanceTable
from datasets.sample import body_box, read_pixels
from main.detector import Detector
from main.estimator import Estimator, PersonCrop
from main.submitting.records import Prediction
from utils.box import Box
from utils.camera import Camera, project
from utils.crop import crop_person
from utils.errors import UserError
from utils.files import path_within
from utils.image import list_images
from utils.progress import with_progress

log = logging.getLogger(__name__)


class Sighting(NamedTuple):
    """A person in an image, and the network's input for that person."""

    image_path: Path
    image_size: tuple[int, int]
    """Width and height in pixels."""
    crop: PersonCrop


def people_of_table(
    table: InstanceTable, image_folder: Path, estimator: Estimator
) -> Iterator[Sighting]:
    """Every row, cut out as for a benchmark.

    Raises:
        UserError: an image cannot be read, or a box has no area inside its image.
    """
    config = estimator.config
    path, image = None, np.zeros((0, 0, 3), np.uint8)
    for instance in with_progress(table, len(table), "people"):
        image_path = path_within(image_folder, instance.image_path)
        if path != image_path:  # rows of an image follow each other
            path = image_path
            image = read_pixels(path)
        height, width = image.shape[:2]
        box = body_box(instance, width, height, config)
        pixels = crop_person(image, box, config.model.input_body_shape)
        detected = Box(*instance.body_box.tolist())
        yield Sighting(path, (width, height), PersonCrop(pixels, box, detected))


def images_under(folder: Path) -> list[Path]:
    """All images of a folder and of those in it, in natural order within each.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    folders = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    images = [image for one in folders if one.is_dir() for image in list_images(one.resolve())]
    if not images:
        raise UserError(f"{folder}: no folder with images in it; name that of the test images")
    return images


def people_of_images(
    images: Sequence[Path], detector: Detector, estimator: Estimator
) -> Iterator[Sighting]:
    """Everyone whom the detector finds; it is told the image's number, from 0.

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
        yield from (Sighting(path, (width, height), crop) for crop in crops if crop is not None)
    if empty:
        log.info("%d of %d images show nobody", empty, len(images))
    if outside:
        log.warning("%d boxes outside their image were left out", outside)


def predictions(
    people: Iterable[Sighting], estimator: Estimator, batch_size: int, *, want_vertices: bool
) -> Iterator[Prediction]:
    """What the network makes of each person, in the same order."""
    remaining = iter(people)
    while batch := list(islice(remaining, batch_size)):
        yield from _predict(batch, estimator, want_vertices=want_vertices)


@torch.inference_mode()
def _predict(
    people: Sequence[Sighting], estimator: Estimator, *, want_vertices: bool
) -> list[Prediction]:
    config = estimator.config.model
    pixels = torch.from_numpy(np.stack([person.crop.pixels for person in people]))
    parameters, _ = estimator.predict(pixels, want_vertices=False)
    # The 137 joints of a prediction lack some of the body model's own first ones.
    body = estimator.body(**parameters._asdict(), want_vertices=want_vertices)
    camera = Camera(config.focal, config.princpt)
    cameras = [camera.in_image(person.crop.box, config.input_body_shape) for person in people]
    joints_2d = project(
        body.joints,
        body.joints.new_tensor([camera.focal for camera in cameras])[:, None],
        body.joints.new_tensor([camera.princpt for camera in cameras])[:, None],
    )
    rows = {name: value.cpu().numpy() for name, value in parameters._asdict().items()}
    joints, joints_2d_px = body.joints.cpu().numpy(), joints_2d.cpu().numpy()
    vertices = None if body.vertices is None else body.vertices.cpu().numpy()
    return [
        Prediction(
            person.image_path,
            person.image_size,
            parameters={name: value[i] for name, value in rows.items()},
            joints_2d_px=joints_2d_px[i],
            joints_3d_m=joints[i],
            vertices_m=None if vertices is None else vertices[i],
        )
        for i, person in enumerate(people)
    ]
