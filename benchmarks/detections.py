"""Errors of an encoder's joints in the image, and their effect on bodies.

    python -m main.synthesize --split train --people 1200 --seed 77 --crops --out DATA
    python -m benchmarks.detections DATA outputs/pretrain_demo_DATE/model_dump/encoder.pth
    python -m benchmarks.detections DATA --weights FILE

The first command compares an encoder with `synthetic.lifting.simulate_detections` on the same
people, with whom the encoder must not have been trained. The tables contain the parameters of the
simulation, measured for the encoder and for the simulation; if they differ, multiply the constant
of the simulation by encoder / simulation.

The second command replaces the places or depths of joints that the encoder finds by the true ones,
and measures the bodies of the whole network.
"""

import argparse
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from configs.reader import load_config
from configs.schema import Config
from datasets.cache import open_dataset
from datasets.sources import find_source
from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from human_models.joints import JOINT_PARTS, JOINTS, mirror_permutation
from main.cli import command, command_parser
from main.training.validation import UnchangedSamples, images_of
from models.checkpoint import load_network
from models.initialise import load_encoder, load_keypoint_head
from models.smplest_x import SMPLestX, body_parameters, observed_keypoints, pose_body
from models.supervision import KeypointNetwork, positions_in_crop
from synthetic.lifting import GROUPS, SWAPPED_SIDES, Draw, simulate_detections
from utils.files import ROOT

_HEIGHTS_PER_WIDTH = 0.75
_BINS = (0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 1.0)
"""Expected errors, shares of the crop's height."""
_LEAST_APART = 0.06
"""Least distance of a left and right joint that counts in swaps, in heights of the crop."""
_SURE = 0.02
"""Expected error that is given with true places."""
_SHARE_SWAPPED = 0.6
"""Share of joints nearer to the other side's places from which sides count as swapped."""


class Detections(NamedTuple):
    """Joints found in the crops of N people, and the true ones."""

    found: Float[Tensor, "N 137 4"]
    """Input of `models.smplest_x.Lifter`."""
    places: Float[Tensor, "N 137 2"]
    """True places, as shares of the crop's width and height."""
    depth_m: Float[Tensor, "N 137"]
    """True depths."""
    inside: Bool[Tensor, "N 137"]
    """Whether the joint is inside the crop."""

    @property
    def errors(self) -> Float[Tensor, "N 137 2"]:
        """Errors in x and y, in heights of the crop."""
        difference = self.found[..., :2] + 0.5 - self.places
        return difference * torch.tensor([_HEIGHTS_PER_WIDTH, 1.0])


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    config = load_config("config_smplest_x_demo.py", tuple(arguments.overrides))
    if arguments.weights is not None:
        Console(width=120).print(true_joints_table(arguments.data, arguments.weights, config))
        return
    ours = found_by_encoder(arguments.data, arguments.encoder, config)
    draw = Draw(torch.device("cpu"))
    draw.restart(1)
    # Without missing joints, which only occur with other keypoint networks.
    simulated = simulate_detections(ours.places, ours.depth_m, ours.inside, draw)
    both = {"encoder": ours, "simulation": ours._replace(found=simulated)}
    console = Console(width=120)
    console.print(groups_table(both), bins_table(both), swaps_table(both))


@torch.inference_mode()
def found_by_encoder(data: Path, encoder: Path, config: Config) -> Detections:
    network = KeypointNetwork(SMPLestX(config.model).encoder).eval()
    load_encoder(network.encoder, encoder)
    load_keypoint_head(network.keypoint_head, encoder)
    parts = []
    for batch in batches(data, config):
        places, inside = positions_in_crop(batch, config.model)
        depth_m = batch["target_joint_cam"][..., 2]
        found = observed_keypoints(network(images_of(batch)))
        parts.append((found, places, depth_m, inside))
    return Detections(*(torch.cat(values) for values in zip(*parts, strict=True)))


def batches(data: Path, config: Config) -> Iterable[dict[str, Tensor]]:
    source = find_source("OpenPeople", config.data)
    table, images = open_dataset(source, "train", data), data / "img" / source.images
    return DataLoader(UnchangedSamples(table, images, config), 64)


@torch.inference_mode()
def true_joints_table(data: Path, weights: Path, config: Config) -> Table:
    """MPJPE of the body relative to the pelvis, with true places, true depths, or both."""
    network = load_network(config.model, weights).eval()
    assert network.keypoint_head is not None
    assert network.lifter is not None
    body = BodyLibrary(find_model_folder(ROOT / config.model.human_model_path)).smplx()
    errors: dict[str, list[Tensor]] = {"none": [], "places": [], "depths": [], "both": []}
    for batch in batches(data, config):
        task_tokens, features = network.encoder(images_of(batch))
        found = observed_keypoints(network.keypoint_head(features))
        places, inside = positions_in_crop(batch, config.model)
        true_m = batch["target_joint_cam"]
        for which, each in errors.items():
            given = found.clone()
            if which in ("places", "both"):
                given[..., :2] = torch.where(inside[..., None], places - 0.5, given[..., :2])
                given[..., 3] = torch.where(inside, _SURE, given[..., 3])
            if which in ("depths", "both"):
                given[..., 2] = true_m[..., 2]
            lifted, queries = network.lifter(given)
            decoded = network.decoder(task_tokens + queries, features.flatten(2).mT)
            parameters = body_parameters(network.regress(lifted + decoded), config.model)
            joints = pose_body(parameters, body, config.model, want_vertices=False).joints
            difference = (joints - joints[:, :1] - true_m)[:, JOINT_PARTS["body"]]
            each.append(1000 * difference.norm(dim=-1).mean(1))
    table = Table("true", "MPJPE of the body, mm", title=f"{len(torch.cat(errors['none']))} people")
    for which, each in errors.items():
        table.add_row(which, f"{torch.cat(each).mean():.1f}")
    return table


def groups_table(both: dict[str, Detections]) -> Table:
    columns = ("error", "spread", "shared", "depth", "depth noise, m", "median px of 128")
    table = Table("group", title="groups of joints: encoder / simulation")
    for column in columns:
        table.add_column(column, justify="right")
    for group in GROUPS:
        values = [group_numbers(detections, group.joints) for detections in both.values()]
        row = [f"{a:.3f} / {b:.3f}" for a, b in zip(*values, strict=True)]
        table.add_row(f"{JOINTS[group.joints[0]]}, {len(group.joints)} joints", *row)
    return table


def group_numbers(detections: Detections, joints: list[int]) -> list[float]:
    """Values of the columns of `groups_table`, over joints in the crop."""
    found, inside = detections.found[:, joints], detections.inside[:, joints]
    inside = inside & found[..., 3].isfinite()
    expected, errors = found[..., 3], detections.errors[:, joints]
    logs = expected[inside].log()
    shares = []
    for k in range(1, len(joints)):
        pair = inside[:, 0] & inside[:, k]
        scaled = [errors[pair, j] / (0.014 + expected[pair, j, None]) for j in (0, k)]
        # Rank correlation, because a few errors are very large.
        ranks = [part.flatten().argsort().argsort().float() for part in scaled]
        shares.append(float(torch.corrcoef(torch.stack(ranks))[0, 1]))
    true, seen = detections.depth_m[:, joints][inside], found[..., 2][inside]
    given = seen != 0  # some networks find no depths
    true, seen = true[given], seen[given]
    slope = float((true * seen).sum() / true.square().sum().clamp(min=1e-9))
    quartiles = logs.quantile(torch.tensor([0.25, 0.5, 0.75]))
    return [
        float(quartiles[1].exp()),
        float((quartiles[2] - quartiles[0]) / 1.349),
        float(np.mean(shares)) if shares else 0.0,
        slope,
        float((seen - slope * true).std()),
        128 * float(errors[inside].norm(dim=-1).median()),
    ]


def bins_table(both: dict[str, Detections]) -> Table:
    """Distances from the true places by expected error, which depend on the simulation's `_FINEST`
    and `_ERROR_OF_EXPECTED`."""
    table = Table("expected", title="distance from the true place: encoder / simulation")
    for column in ("share of joints", "mean expected", "median", "90 %"):
        table.add_column(column, justify="right")
    for low, high in pairwise(_BINS):
        values = []
        for each in both.values():
            known = each.inside & each.found[..., 3].isfinite()
            expected, distance = each.found[..., 3][known], each.errors.norm(dim=-1)[known]
            chosen = (expected >= low) & (expected < high)
            quantiles = distance[chosen].quantile(torch.tensor([0.5, 0.9]))
            share = float(chosen.float().mean())
            values.append([share, float(expected[chosen].mean()), *quantiles.tolist()])
        row = [f"{a:.3f} / {b:.3f}" for a, b in zip(*values, strict=True)]
        table.add_row(f"{low} to {high}", *row)
    return table


def swaps_table(both: dict[str, Detections]) -> Table:
    table = Table("left for right", title="share of people: encoder / simulation")
    table.add_column("share", justify="right")
    names = ("whole person", "legs", "arms")
    for name, (joints, _) in zip(names, SWAPPED_SIDES, strict=True):
        values = [swapped(each, joints) for each in both.values()]
        table.add_row(name, f"{values[0]:.3f} / {values[1]:.3f}")
    return table


def swapped(detections: Detections, joints: list[int]) -> float:
    """Share of people with most joints at the places of the other side, where sides differ."""
    other = detections.places[:, mirror_permutation(JOINTS)]
    scale = torch.tensor([_HEIGHTS_PER_WIDTH, 1.0])
    apart = ((detections.places - other) * scale).norm(dim=-1) > _LEAST_APART
    there = (detections.found[..., :2] + 0.5 - other) * scale
    nearer = there.norm(dim=-1) < detections.errors.norm(dim=-1)
    counted = (apart & detections.inside & detections.found[..., 3].isfinite())[:, joints]
    enough = counted.sum(1) >= 4
    share = (nearer[:, joints] & counted).sum(1) / counted.sum(1).clamp(min=1)
    return float((share[enough] > _SHARE_SWAPPED).float().mean())


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("detections", "Measure errors of an encoder's joints.")
    parser.prog = "python -m benchmarks.detections"
    parser.add_argument("data", type=Path, help="folder with annot/ and img/ of openpeople")
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("encoder", nargs="?", type=Path, help="encoder.pth of a pre-training")
    network.add_argument("--weights", type=Path, help="weights of a network with a lifter")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())
