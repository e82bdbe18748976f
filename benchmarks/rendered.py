"""The truth of rendered clips (`python -m main.synthesize --video`), as `walkers` has it."""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.walkers import Walker, joints_of
from human_models.body import BodyModel
from human_models.safe_pickle import load_npz
from main.motion.camera import ClipCamera


def video_of(file: Path) -> Path:
    """The video of an annotation file, where `main.synthesize --video` put it."""
    frame = Path(str(load_npz(file)["image_path"][0]))
    split, clip = frame.parts[0], frame.parts[1]
    name = file.stem.removesuffix(f"_{split}_{clip}")
    return file.parent.parent / "img" / name / split / f"{clip}.mp4"


def read_clip(file: Path, body: BodyModel) -> tuple[list[Walker], ClipCamera, int]:
    """People, camera and number of frames of a clip's annotation file.

    Where somebody is not annotated, they are out of view.
    """
    content = load_npz(file)
    meta, parameters = content["meta"].item(), content["smplx"].item()
    frames = int(meta["frame_index"].max()) + 1
    camera = ClipCamera(
        tuple(map(float, meta["focal_length"][0])),
        tuple(map(float, meta["principal_point"][0])),
        "annotation",
    )
    people = []
    for number in np.unique(meta["person"]):
        mine = np.flatnonzero(meta["person"] == number)
        at = meta["frame_index"][mine]
        vectors = np.concatenate(
            [parameters["global_orient"][mine, None], parameters["body_pose"][mine]], axis=1
        )
        rotations = np.tile(np.eye(3), (frames, 22, 1, 1))
        matrices = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix()
        rotations[at] = matrices.reshape(-1, 22, 3, 3)
        betas = parameters["betas"][mine[0]].astype(np.float32)
        joints = joints_of(body, rotations, np.tile(betas, (frames, 1)))
        joints[at] += parameters["transl"][mine, None]
        boxes, covered, in_image = np.zeros((frames, 4)), np.ones(frames), np.zeros(frames)
        boxes[at] = content["bbox_xywh"][mine, :4]
        covered[at], in_image[at] = meta["occlusion"][mine], 1 - meta["truncation"][mine]
        people.append(Walker(rotations, betas, joints, boxes, covered, in_image))
    return people, camera, frames
