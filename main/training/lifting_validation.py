"""How well a lifter knows bodies by their joints: of people whose poses training does not have."""

from collections.abc import Iterator
from typing import Final

import torch

from configs.schema import TrainConfig
from datasets.synthetic.lifting import People, draw_poses
from human_models.joints import JOINT_PARTS
from main.training.validation import Validator
from models.posing import body_parameters, pose_body, root_relative
from models.supervised import LiftingNetwork
from utils.alignment import align_similarity

_SEED: Final = 2**32
"""Not a seed of training's, which configs hold to be smaller ones."""
_POSES: Final = 500
_SAMPLES: Final = 1000
_MILLIMETRES: Final = 1000


class LiftingValidator(Validator):
    """Mean distances of joints in millimetres: from the pelvis, and aligned (PA)."""

    @staticmethod
    def _metric_of(config: TrainConfig) -> str:
        del config
        return "mpjpe"

    def _evaluations(self) -> Iterator[tuple[str, dict[str, float]]]:
        if self._world.is_first:
            yield "lifting", self._evaluate()

    @torch.inference_mode()
    def _evaluate(self) -> dict[str, float]:
        network, body, model = self._learner.network, self._bodies.smplx(), self._config.model
        assert isinstance(network, LiftingNetwork)
        rest = body.rest_joints(torch.zeros(1, body.num_betas, device=self._device))[0]
        people = People(draw_poses(rest.numpy(force=True), _SEED, _POSES), body, model)
        batch = people.batch(_SAMPLES, _SEED)
        parameters = body_parameters(network(batch["keypoints"]), model)
        posed = pose_body(parameters, body, model, want_vertices=False)
        found, true = root_relative(posed.joints), batch["target_joint_cam"]
        body_joints = JOINT_PARTS["body"]
        distances = {"mpjpe": (found - true)[:, body_joints].norm(dim=2)}
        for name, part in JOINT_PARTS.items():
            aligned = align_similarity(found[:, part], true[:, part])
            distances[f"pa_{name}"] = (aligned - true[:, part]).norm(dim=2)
        return {name: _MILLIMETRES * float(d.mean()) for name, d in distances.items()}
