"""Ground truth as meshes that were registered to 3D scans, in files beside the images."""

from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32

from utils.errors import UserError
from utils.mesh import read_ply_vertices

_VERTICES: Final = 10475


class Scans(NamedTuple):
    """Where a dataset has its meshes, and how they stand."""

    ending: str
    """What the image's name has instead of its last _word: 01_img.jpg -> 01_align.ply."""
    to_camera: tuple[float, float, float]
    """Axis-angle rotation (radians) from the scanner's frame into the camera's."""

    def path_for(self, image: Path) -> Path:
        return image.with_name((image.stem.rpartition("_")[0] or image.stem) + self.ending)


def scanned_mesh(image: Path, scans: Scans) -> Float32[np.ndarray, "10475 3"]:
    """The mesh of an image: metres, axes of the camera, origin of the scanner.

    Raises:
        UserError: the file is missing, damaged, or no mesh of SMPL-X.
    """
    path = scans.path_for(image)
    vertices = read_ply_vertices(path)
    if len(vertices) != _VERTICES:
        raise UserError(
            f"'{path}' has {len(vertices)} vertices, SMPL-X has {_VERTICES}; "
            "put the registered mesh there, not the raw scan"
        )
    rotation = cv2.Rodrigues(np.array(scans.to_camera))[0]
    return (vertices @ rotation.T).astype(np.float32)
