"""Whether a HumanData file is what training and testing can rely on."""

from pathlib import Path
from typing import Final

from datasets.humandata import check_images as images
from datasets.humandata import check_keypoints as keypoints
from datasets.humandata import check_layout as layout
from datasets.humandata import check_numbers as numbers
from datasets.humandata.finding import Finding, OpenedFile

_CHECKS: Final = (
    layout.readable,
    layout.required_entries,
    layout.bookkeeping,
    layout.texts,
    layout.row_counts_and_shapes,
    layout.masks,
    numbers.finite,
    numbers.boxes,
    numbers.rotations,
    numbers.coefficients,
    numbers.translations,
    numbers.camera,
    numbers.genders,
    numbers.hand_convention,
    numbers.duplicates,
    keypoints.confidences,
    keypoints.places,
    keypoints.depths,
    keypoints.reprojection,
    images.stated_sizes,
)
_ORDER: Final = ("error", "warning", "info")


def check_humandata(
    path: Path, images_folder: Path | None = None, *, images_sample: int | None = None
) -> list[Finding]:
    """Everything that is wrong or odd in a file, the worst first; see `Finding` for the severities.

    Args:
        images_folder: what image_path counts from; None: the images are not looked at.
        images_sample: look at so many images, drawn at random but always the same; None: at all of
            them.

    Raises:
        UserError: the container itself cannot be read.
    """
    file = OpenedFile(path)
    findings = [finding for check in _CHECKS for finding in check(file)]
    if images_folder is not None:
        findings += images.images(file, images_folder, images_sample)
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))
