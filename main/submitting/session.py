"""One call of the submission door: everyone of a test split into a zip, which is then checked."""

import argparse
import logging
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from datasets.cache import open_dataset
from datasets.sources import find_source
from human_models.files import STAND_IN_NAME
from main.detector import BoxFileDetector, Detector, YoloDetector
from main.estimator import Estimator
from main.model_files import ROOT, find_model, find_snapshot
from main.submitting.check import check_submission
from main.submitting.people import (
    Sighting,
    images_under,
    people_of_images,
    people_of_table,
    predictions,
)
from main.submitting.records import FOLDER, PersonNames, Prediction, Server, pickled
from utils.errors import UserError
from utils.files import atomic_path
from utils.prefetch import prefetch

log = logging.getLogger(__name__)

READ_AHEAD: Final = 32
"""People who are cut out of their images ahead of the network."""
FINDINGS_STATUS: Final = 1
"""Exit status where the checker found errors."""


def write_submission(path: Path, people: Iterable[Prediction], server: Server) -> None:
    """Write the zip, person by person.

    Raises:
        UserError: there is nobody, or an image is not what the server's names or pixels are about.
    """
    names = PersonNames(server)
    with atomic_path(path) as partial_path:
        with zipfile.ZipFile(partial_path, "w", zipfile.ZIP_DEFLATED) as archive:
            for person in people:
                name = names.next(person.image_path)
                archive.writestr(f"{FOLDER}/{name}", pickled(server.record(person)))
        if not names.people:
            raise UserError("nobody was found; try --set inference.detection.conf=0.3, or --boxes")


def run_check(path: Path, server: Server) -> int:
    """Tell what the checker finds; the exit status."""
    check = check_submission(path, server)
    for finding in check.findings:
        log.log(logging.ERROR if finding.level == "error" else logging.WARNING, "%s", finding)
    warnings = len(check.findings) - check.errors
    log.info(
        *("%s for %s: %d images, %d people, %d errors, %d warnings", path, server.name),
        *(check.images, check.people, check.errors, warnings),
    )
    return FINDINGS_STATUS if check.errors else 0


def submit(arguments: argparse.Namespace, server: Server) -> int:
    """Estimate everyone of the test split, write the zip and check it; the exit status."""
    if arguments.output.suffix != ".zip":
        raise UserError(f"--output {arguments.output}: servers take a .zip; name it so")
    if arguments.boxes is not None and arguments.images is None:
        raise UserError("--boxes counts the images of --images; name their folder too")
    estimator = _load(arguments)
    if estimator.body_name == STAND_IN_NAME:
        log.warning(
            "made with the %s: the server will compare it with SMPL-X; put SMPL-X's files in place",
            STAND_IN_NAME,
        )
    people = _sightings(arguments, estimator, server)
    with closing(prefetch(people, READ_AHEAD)) as ahead:
        predicted = predictions(
            ahead,
            estimator,
            estimator.config.test.test_batch_size,
            want_vertices=server.needs_vertices,
        )
        write_submission(arguments.output, predicted, server)
    return run_check(arguments.output, server)


def _load(arguments: argparse.Namespace) -> Estimator:
    if arguments.checkpoint_id is None:
        files = find_model(arguments.model_dir)
    else:
        files = find_snapshot(arguments.model_dir, arguments.checkpoint_id)
    return Estimator.load(
        str(files.weights),
        device=arguments.device,
        precision=arguments.precision,
        overrides=arguments.overrides,
    )


def _sightings(
    arguments: argparse.Namespace, estimator: Estimator, server: Server
) -> Iterator[Sighting]:
    if arguments.images is not None:
        images = images_under(arguments.images)
        return people_of_images(images, _detector(arguments, estimator), estimator)
    config = estimator.config.data
    source = find_source(server.source, config)._replace(test_interval=1)  # servers want everyone
    data_dir = ROOT / config.data_dir
    table = open_dataset(source, "test", data_dir)
    return people_of_table(table, data_dir / "img" / source.images, estimator)


def _detector(arguments: argparse.Namespace, estimator: Estimator) -> Detector:
    if arguments.boxes is not None:
        return BoxFileDetector(arguments.boxes)
    return YoloDetector(estimator.config.inference.detection, estimator.device)
