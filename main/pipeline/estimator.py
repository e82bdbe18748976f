"""The estimator: people from an image and their boxes.

from main.pipeline import Estimator

estimator = Estimator.load("smplest_x_h")
people = estimator(image, boxes=[(120, 40, 200, 480)])
people[0].body_pose, people[0].vertices_m, people[0].joints_2d_px
"""

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from configs.reader import load_config
from configs.schema import Config
from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from human_models.joints import JOINTS_FROM_MODEL
from main.pipeline.model_files import ModelFiles, find_model
from models.checkpoint import load_network
from models.deployment import PROGRAMS, OnnxNetwork, StaticNetwork
from models.smplest_x import (
    BodyParameters,
    HeadOutputs,
    PosedBody,
    SMPLestX,
    body_parameters,
    pose_body,
)
from utils.camera import Box, Camera, crop_person, person_box
from utils.devices import copied_to, has_bf16_units, pick_device
from utils.errors import UserError
from utils.files import ROOT

log = logging.getLogger(__name__)

Network = SMPLestX | OnnxNetwork | StaticNetwork
AT_ONCE: Final = 256
"""Bodies that are posed, or placed in the clip's camera, at once."""
PRECISIONS: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Person(NamedTuple):
    """One person in one image. Frames: x right, y down, z forward; metres, radians, pixels.

    The crop's camera, in which the body stands, is given by `focal` and `princpt` in pixels of the
    whole image: a point (X, Y, Z) is seen at focal * (X, Y) / (Z + 1e-4) + princpt.
    Rotations are axis-angle vectors; those of hands are relative to the mean hand
    (flat_hand_mean=False). `joints_3d_m`, `vertices_m` include `transl`.
    """

    box_xywh: Float[np.ndarray, "4"]
    global_orient: Float[np.ndarray, "3"]
    body_pose: Float[np.ndarray, "63"]
    left_hand_pose: Float[np.ndarray, "45"]
    right_hand_pose: Float[np.ndarray, "45"]
    jaw_pose: Float[np.ndarray, "3"]
    betas: Float[np.ndarray, "10"]
    expression: Float[np.ndarray, "10"]
    transl: Float[np.ndarray, "3"]
    focal: Float[np.ndarray, "2"]
    princpt: Float[np.ndarray, "2"]
    joints_3d_m: Float[np.ndarray, "137 3"]
    joints_2d_px: Float[np.ndarray, "137 2"]
    vertices_m: Float[np.ndarray, "10475 3"] | None

    def is_finite(self) -> bool:
        """Whether all numbers are finite; a network with damaged weights gives NaN."""
        return all(value is None or bool(np.isfinite(value).all()) for value in self)


class PersonCrop(NamedTuple):
    """The network's input for one person (RGB, 0 to 255), its box, and the detected box."""

    pixels: Float[np.ndarray, "h w 3"]
    box: Box
    detected: Box


class Estimator:
    """A network and a body model on one device; made by `Estimator.load`."""

    def __init__(
        self,
        config: Config,
        network: Network,
        bodies: BodyLibrary,
        device: torch.device,
    ) -> None:
        self.config, self.device = config, device
        self.network = network.to(device) if isinstance(network, SMPLestX) else network
        self.bodies = bodies
        self.body = bodies.smplx("neutral").to(device)
        self.body_name = bodies.folder.name

    @classmethod
    def load(
        cls,
        model_dir: str,
        *,
        device: str = "auto",
        precision: str = "fp32",
        backend: str = "torch",
        overrides: Sequence[str] = (),
        download: bool = False,
    ) -> "Estimator":
        """Load MODEL_DIR: a name under pretrained_models/, a folder, or a weights file.

        Args:
            precision: "fp32" or "bf16", for encoder and decoder.
            backend: runtime of the network: "torch", "onnx" (in fp32), "compile" (torch.compile) or
                "cuda-graphs".
            overrides: changes to the config, "section.key=value".
            download: fetch a published model if it is absent.

        Raises:
            UserError: something is missing or does not fit; see the message.
        """
        files = find_model(model_dir, download=download)
        config = load_config(files.config, overrides)
        chosen = pick_device(device)
        if precision == "bf16" and chosen.type == "cpu" and not has_bf16_units():
            log.warning("this CPU has no bf16 units: --precision fp32 is faster on it")
        if backend == "cuda-graphs" and chosen.type != "cuda":
            raise UserError(f"--backend cuda-graphs needs a CUDA device, and this is {chosen}")
        network: Network
        if backend == "onnx":
            network = _onnx_network(files, precision, chosen)
        else:
            network = load_network(config.model, files.weights, PRECISIONS[precision])
            if backend in PROGRAMS:
                network = StaticNetwork(network.to(chosen), PROGRAMS[backend])
        folder = find_model_folder(ROOT / config.model.human_model_path)
        log.info("model %s (%s) on %s, body: %s", files.name, precision, chosen, folder.name)
        return cls(config, network, BodyLibrary(folder), chosen)

    def __call__(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        boxes: Sequence[tuple[float, float, float, float]],
        *,
        want_vertices: bool = True,
    ) -> list[Person]:
        """People of one RGB image, one per box (x, y, width, height), in the boxes' order.

        Raises:
            ValueError: a box has no area inside the image.
        """
        crops = [self.crop(image, Box(*box)) for box in boxes]
        outside = [i for i, crop in enumerate(crops) if crop is None]
        if outside:
            raise ValueError(f"box {outside[0]} has no area inside the image: {boxes[outside[0]]}")
        return self.estimate([crop for crop in crops if crop], want_vertices=want_vertices)

    def crop(self, image: UInt8[np.ndarray, "H W 3"], detected: Box) -> PersonCrop | None:
        """The network's input for a box; None if the box has no area inside the image."""
        height, width = image.shape[:2]
        crop_height, crop_width = self.config.model.input_img_shape
        box = person_box(
            detected,
            width,
            height,
            aspect=crop_width / crop_height,
            ratio=self.config.data.bbox_ratio,
        )
        if box is None:
            return None
        return PersonCrop(
            crop_person(image, box, self.config.model.input_body_shape), box, detected
        )

    @torch.inference_mode()
    def predict(
        self, pixels: Float[Tensor, "B h w 3"], *, want_vertices: bool
    ) -> tuple[BodyParameters, PosedBody]:
        """Run network and body model on a batch of crops (0 to 255); results are on the device."""
        return self._pose(self._regress(pixels), want_vertices=want_vertices)

    def estimate(self, crops: Sequence[PersonCrop], *, want_vertices: bool = True) -> list[Person]:
        """People of one batch of crops, of one image or of many."""
        if not crops:
            return []
        return self.people(crops, self.heads(crops), want_vertices=want_vertices)

    @torch.inference_mode()
    def heads(self, crops: Sequence[PersonCrop]) -> HeadOutputs:
        """The network's outputs for a batch of crops."""
        return self._regress(torch.from_numpy(np.stack([crop.pixels for crop in crops])))

    @torch.inference_mode()
    def people(
        self, crops: Sequence[PersonCrop], heads: HeadOutputs, *, want_vertices: bool = True
    ) -> list[Person]:
        """The people of a batch of crops, from the network's outputs."""
        config = self.config.model
        parameters, posed = self._pose(heads, want_vertices=want_vertices)
        rows = {name: value.cpu().numpy() for name, value in parameters._asdict().items()}
        joints, joints_2d = posed.joints.cpu().numpy(), posed.joints_2d.cpu().numpy()
        vertices = None if posed.vertices is None else posed.vertices.cpu().numpy()
        camera = Camera(config.focal, config.princpt)
        people = []
        for i, crop in enumerate(crops):
            in_image = camera.in_image(crop.box, config.input_body_shape)
            scale = np.array(in_image.focal) / np.array(camera.focal)
            people.append(
                Person(
                    box_xywh=np.array(crop.detected, np.float32),
                    **{name: value[i] for name, value in rows.items()},
                    focal=np.array(in_image.focal, np.float32),
                    princpt=np.array(in_image.princpt, np.float32),
                    joints_3d_m=joints[i],
                    joints_2d_px=(joints_2d[i] * scale + [crop.box.x, crop.box.y]).astype(
                        np.float32
                    ),
                    vertices_m=None if vertices is None else vertices[i],
                )
            )
        return people

    @torch.inference_mode()
    def joints_of(self, parameters: dict[str, np.ndarray]) -> Float[np.ndarray, "T 137 3"]:
        """The joints of T people in metres, in the cameras of their crops.

        Args:
            parameters: fields of `Person` by name; `focal` and `princpt` are ignored.
        """
        joints = []
        for start in range(0, len(parameters["transl"]), AT_ONCE):
            given = {
                name: torch.from_numpy(value[start : start + AT_ONCE]).to(self.device)
                for name, value in parameters.items()
                if name not in ("focal", "princpt")
            }
            posed = self.body(**given, want_vertices=False).joints
            joints.append(posed[:, list(JOINTS_FROM_MODEL)].cpu().numpy())
        return np.concatenate(joints)

    def _regress(self, pixels: Float[Tensor, "B h w 3"]) -> HeadOutputs:
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
        images = copied_to(self.device, {"images": pixels})["images"].permute(0, 3, 1, 2) / 255
        heads: HeadOutputs = self.network(images)
        return heads

    def _pose(self, heads: HeadOutputs, *, want_vertices: bool) -> tuple[BodyParameters, PosedBody]:
        parameters = body_parameters(heads, self.config.model)
        posed = pose_body(parameters, self.body, self.config.model, want_vertices=want_vertices)
        return parameters, posed


def _onnx_network(files: ModelFiles, precision: str, device: torch.device) -> OnnxNetwork:
    if precision != "fp32":
        raise UserError(
            f"onnx computes in fp32, not in {precision}; leave one out", setting="backend"
        )
    network = OnnxNetwork(files.onnx, device)
    if files.onnx.stat().st_mtime < files.weights.stat().st_mtime:
        log.warning("%s is older than %s; main.convert --onnx", files.onnx, files.weights.name)
    return network
