"""Writers of a character as GLB, USD, BVH, AMASS, and one mesh per frame.

BVH and AMASS have a fixed frame rate, so missing frames are filled in. BVH (Biovision hierarchy)
is a skeleton of offsets, and Euler angles per frame; it defines neither unit nor axes.
"""

from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int

from human_models.body import BodyModel
from human_models.files import BodyData
from human_models.joints import RIG_JOINTS, SMPLX_SURFACE_VERTICES
from main.characters.character import TO_WORLD, Character, without_gaps
from main.characters.surfaces import Morphs, make_layers, make_morphs, make_skeleton
from utils.errors import UserError
from utils.files import atomic_path
from utils.iteration import with_progress
from utils.mesh import Motion, Skeleton, Surface, make_glb, obj_maker, ply_maker


def write_glb(
    path: Path, character: Character, body: BodyData, person: int, *, clothes: bool = True
) -> None:
    """Write a character in a world with y up; keyframes are at the times of the video's frames.

    The shape is baked into the rest mesh; expressions are morph targets, jaw and fingers joints.
    """
    assert character.up == "y"
    skeleton = make_skeleton(body, character.betas)
    morphs = make_morphs(character.expression)
    layers, _ = make_layers(body, character.betas, person, morphs, clothes=clothes)
    motion = Motion(
        times_s=character.times_s,
        rotations=character.quaternions,
        root_m=character.pelvis_m,
        morphs=morphs.weights,
    )
    surfaces = [layer.surface for layer in layers]
    content = make_glb(character.name, skeleton, surfaces, motion, _about(character, morphs))
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def _about(character: Character, morphs: Morphs) -> dict[str, Any]:
    return {
        "body_model": character.body_model,
        "fps": character.fps,
        "first_frame": int(character.frame_index[0]),
        "last_frame": int(character.frame_index[-1]),
        "keyframes": len(character.frame_index),
        "betas": [round(float(beta), 6) for beta in character.betas],
        "units": "metres, seconds from the beginning of the video",
        "world": "y up, x right and z towards the viewer, as the camera of the first frame sees it",
        "hands": "rotations from the flat hand; the model's mean hand is in them",
        "shape": "betas are the mean over the track, baked into the rest mesh",
        "expression_of_a_full_morph": morphs.scale,
        "not_included": "pose-corrective blend shapes; all but four weights of each vertex",
    }


_CENTIMETRES: Final = 100.0
_TIPS: Final = {
    f"{side}_{joint}": f"{side}_{tip}"
    for side in ("left", "right")
    for joint, tip in (
        ("foot", "big_toe"),
        ("eye_smplhf", "eye"),
        *((f"{finger}3", f"{finger}4") for finger in ("thumb", "index", "middle", "ring", "pinky")),
    )
}
"""Points of the surface at which the last bones end."""


def write_bvh(path: Path, character: Character, body: BodyData) -> None:
    """Write 55 joints with fingers, in centimetres, from the person's first frame to the last.

    The rest pose stands upright in the character's world. Without gaps, row n is keyframe n.
    """
    character = without_gaps(character)
    # The rest pose has y up; all frames of the skeleton are turned by the same rotation.
    turn = np.array(TO_WORLD[character.up]) @ np.array(TO_WORLD["y"]).T
    skeleton = make_skeleton(body, character.betas)
    ends = _ends(body, character.betas, skeleton.positions_m, skeleton.offsets_m)
    rotations = turn @ character.rotations @ turn.T
    rotations[:, 0] = character.rotations[:, 0] @ turn.T
    text = make_bvh(
        skeleton.names,
        skeleton.parents,
        skeleton.offsets_m @ turn.T * _CENTIMETRES,
        ends @ turn.T * _CENTIMETRES,
        character.pelvis_m * _CENTIMETRES,
        rotations,
        1 / character.fps,
    )
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="ascii")


def _ends(
    body: BodyData,
    betas: Float[np.ndarray, " S"],
    joints: Float[np.ndarray, "55 3"],
    offsets: Float[np.ndarray, "55 3"],
) -> Float[np.ndarray, "55 3"]:
    """The ends of bones without a child joint, relative to their joint.

    The bone of the jaw, which has no point at its end, continues the bone above it.
    """
    ends = offsets.copy()
    for joint, tip in _TIPS.items():
        vertex, number = SMPLX_SURFACE_VERTICES[tip], RIG_JOINTS.index(joint)
        tip_position = body.template[vertex] + body.shape_directions[vertex] @ betas
        ends[number] = tip_position - joints[number]
    return ends


def write_amass(path: Path, character: Character, body: BodyData) -> None:
    """Write parameters (SMPL-X with N frames per file, stageii) from the first frame to the last.

    The SMPL-X add-on for Blender reads the file; docs/animation.md describes other readers. As in
    AMASS, poses include the mean hand, so they need a model with flat_hand_mean=True. `trans` is
    the `transl` of the smplx package.
    """
    character = without_gaps(character)
    pelvis = make_skeleton(body, character.betas).positions_m[0]
    poses = character.poses
    arrays = {
        "trans": character.pelvis_m - pelvis,
        "poses": poses,
        "root_orient": poses[:, :3],
        "pose_body": poses[:, 3:66],
        "pose_jaw": poses[:, 66:69],
        "pose_eye": poses[:, 69:75],
        "pose_hand": poses[:, 75:],
        "betas": character.betas,
        "num_betas": np.int64(len(character.betas)),
        "expression": character.expression,
        "gender": np.array(body.gender),
        "surface_model_type": np.array("smplx"),
        "mocap_frame_rate": np.float64(character.fps),
        "mocap_framerate": np.float64(character.fps),  # the older name, which some readers need
        "mocap_time_length": np.float64(len(poses) / character.fps),
        # Not part of AMASS.
        "frame_index": character.frame_index,
        "interpolated": character.interpolated,
        "up_axis": np.array(character.up),
        "flat_hand_mean": np.bool_(True),
        "body_model": np.array(character.body_model),
    }
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


_POSITION: Final = "Xposition Yposition Zposition"
_ROTATION: Final = "Zrotation Xrotation Yrotation"
_LOCKED: Final = 1 - 1e-9


def make_bvh(
    names: Sequence[str],
    parents: Sequence[int],
    offsets: Float[np.ndarray, "J 3"],
    ends: Float[np.ndarray, "J 3"],
    root_positions: Float[np.ndarray, "T 3"],
    rotations: Float[np.ndarray, "T J 3 3"],
    frame_seconds: float,
) -> str:
    """The text of a .bvh file.

    The children of a joint follow it in the order of `names`. Angles are in degrees, R = Rz Rx Ry,
    and unwrapped, so that they do not jump at 180.

    Args:
        names: without spaces.
        parents: -1 for the root, which is the first.
        offsets: from the parent's joint, in the rest pose; that of the root is written as zero,
            since its channels are its position.
        ends: the ends of bones without a child joint, relative to their joint.
        rotations: relative to the parent.
    """
    children: list[list[int]] = [[] for _ in names]
    for joint, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(joint)
    order: list[int] = []
    text = StringIO()
    text.write("HIERARCHY\n")

    def write_joint(joint: int, depth: int) -> None:
        order.append(joint)
        indent, inner = "\t" * depth, "\t" * (depth + 1)
        is_root = depth == 0
        channels = f"6 {_POSITION} {_ROTATION}" if is_root else f"3 {_ROTATION}"
        offset = np.zeros(3) if is_root else offsets[joint]
        text.write(f"{indent}{'ROOT' if is_root else 'JOINT'} {names[joint]}\n{indent}{{\n")
        text.write(f"{inner}OFFSET {_numbers(offset)}\n{inner}CHANNELS {channels}\n")
        for child in children[joint]:
            write_joint(child, depth + 1)
        if not children[joint]:
            text.write(f"{inner}End Site\n{inner}{{\n")
            text.write(f"{inner}\tOFFSET {_numbers(ends[joint])}\n{inner}}}\n")
        text.write(f"{indent}}}\n")

    write_joint(0, 0)
    angles = np.degrees(np.unwrap(euler_zxy(rotations[:, order]), axis=0))
    rows = np.concatenate([root_positions, angles.reshape(len(angles), -1)], axis=1)
    text.write(f"MOTION\nFrames: {len(rows)}\nFrame Time: {frame_seconds:.10f}\n")
    np.savetxt(text, rows, fmt="%.6f")
    return text.getvalue()


def euler_zxy(rotations: Float[np.ndarray, "*B 3 3"]) -> Float[np.ndarray, "*B 3"]:
    """Angles (z, x, y) in radians with R = Rz(z) Rx(x) Ry(y); x in [-pi/2, pi/2].

    If x is a right angle, only the sum or difference of z and y is defined, and y is set to 0.
    """
    R = rotations.astype(np.float64)
    sine = np.clip(R[..., 2, 1], -1, 1)
    locked = np.abs(sine) > _LOCKED
    z = np.where(
        locked,
        np.arctan2(R[..., 1, 0], R[..., 0, 0]),
        np.arctan2(-R[..., 0, 1], R[..., 1, 1]),
    )
    y = np.where(locked, 0.0, np.arctan2(-R[..., 2, 0], R[..., 2, 2]))
    return np.stack([z, np.arcsin(sine), y], axis=-1)


def _numbers(values: Float[np.ndarray, "3"]) -> str:
    return " ".join(f"{value:.6f}" for value in values)


try:
    from pxr import (  # type: ignore[import-untyped, import-not-found, unused-ignore]
        Sdf,
        Usd,
        UsdGeom,
        UsdSkel,
        Vt,
    )
except ModuleNotFoundError:
    Sdf = Usd = UsdGeom = UsdSkel = Vt = None


def require_usd() -> None:
    """Raises UserError if usd-core is not installed."""
    if Usd is None:
        raise UserError(
            "the export format usd needs the package usd-core: .venv/bin/pip install usd-core"
        )


def write_usd(
    path: Path, character: Character, body: BodyData, person: int, *, clothes: bool = True
) -> None:
    """Write a .usdc of a character in a world with y up, in metres; time codes are video frames.

    Raises:
        UserError: usd-core is not installed, or the path is not valid UTF-8.
    """
    require_usd()
    assert character.up == "y"
    skeleton = make_skeleton(body, character.betas)
    morphs = make_morphs(character.expression)
    layers, _ = make_layers(body, character.betas, person, morphs, clothes=clothes)
    with atomic_path(path) as partial:
        try:
            stage = Usd.Stage.CreateNew(str(partial))
        except UnicodeEncodeError:
            raise UserError(
                f"{path}: names of USD files must be valid UTF-8; give --output DIR"
            ) from None
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        stage.SetTimeCodesPerSecond(character.fps)
        stage.SetFramesPerSecond(character.fps)
        stage.SetStartTimeCode(int(character.frame_index[0]))
        stage.SetEndTimeCode(int(character.frame_index[-1]))
        root = UsdSkel.Root.Define(stage, f"/{character.name}")
        stage.SetDefaultPrim(root.GetPrim())
        rig = _define_skeleton(stage, root.GetPath(), skeleton)
        motion = _define_motion(stage, root.GetPath(), rig, skeleton, character, morphs)
        binding = UsdSkel.BindingAPI.Apply(rig.GetPrim())
        binding.CreateAnimationSourceRel().SetTargets([motion.GetPath()])
        for layer in layers:
            _define_surface(stage, root.GetPath(), rig, layer.surface)
        stage.GetRootLayer().Save()


def _define_skeleton(stage: Any, root: Any, skeleton: Skeleton) -> Any:
    rig = UsdSkel.Skeleton.Define(stage, root.AppendChild("skeleton"))
    paths: list[str] = []
    for name, parent in zip(skeleton.names, skeleton.parents, strict=True):
        paths.append(f"{paths[parent]}/{name}" if parent >= 0 else name)
    rig.CreateJointsAttr(paths)
    bind = np.tile(np.eye(4), (len(paths), 1, 1))
    bind[:, 3, :3] = skeleton.positions_m  # USD multiplies row vectors from the left
    rest = np.tile(np.eye(4), (len(paths), 1, 1))
    rest[:, 3, :3] = skeleton.offsets_m
    rig.CreateBindTransformsAttr(Vt.Matrix4dArray.FromNumpy(bind))
    rig.CreateRestTransformsAttr(Vt.Matrix4dArray.FromNumpy(rest))
    return rig


def _define_motion(
    stage: Any, root: Any, rig: Any, skeleton: Skeleton, character: Character, morphs: Morphs
) -> Any:
    motion = UsdSkel.Animation.Define(stage, root.AppendChild("motion"))
    motion.CreateJointsAttr(rig.GetJointsAttr().Get())
    motion.CreateBlendShapesAttr(list(morphs.names))
    motion.CreateScalesAttr(Vt.Vec3hArray.FromNumpy(np.ones((len(skeleton.names), 3), np.float16)))
    quaternions = character.quaternions[..., [1, 2, 3, 0]].astype(np.float32)
    offsets = np.tile(skeleton.offsets_m, (len(quaternions), 1, 1))
    offsets[:, 0] = character.pelvis_m
    columns = (
        (motion.CreateRotationsAttr(), Vt.QuatfArray, quaternions),
        (motion.CreateTranslationsAttr(), Vt.Vec3fArray, offsets.astype(np.float32)),
        (motion.CreateBlendShapeWeightsAttr(), Vt.FloatArray, morphs.weights),
    )
    for attribute, kind, rows in columns:
        for frame, row in zip(character.frame_index.tolist(), rows, strict=True):
            attribute.Set(kind.FromNumpy(np.ascontiguousarray(row, np.float32)), frame)
    return motion


def _define_surface(stage: Any, root: Any, rig: Any, surface: Surface) -> None:
    mesh = UsdGeom.Mesh.Define(stage, root.AppendChild(surface.name))
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    mesh.CreateDoubleSidedAttr(surface.material.double_sided)
    mesh.CreatePointsAttr(_vectors(surface.positions_m))
    mesh.CreateNormalsAttr(_vectors(surface.normals))
    mesh.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    mesh.CreateFaceVertexCountsAttr([3] * len(surface.faces))
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(surface.faces.ravel().astype(np.int32)))
    colors = np.array([surface.material.color]) if surface.colors is None else surface.colors
    constant = surface.colors is None
    interpolation = UsdGeom.Tokens.constant if constant else UsdGeom.Tokens.vertex
    mesh.CreateDisplayColorPrimvar(interpolation).Set(_vectors(colors))
    if surface.texture_coordinates is not None:
        upward = surface.texture_coordinates * [1, -1] + [0, 1]
        kind = Sdf.ValueTypeNames.TexCoord2fArray
        st = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar("st", kind, UsdGeom.Tokens.vertex)
        st.Set(Vt.Vec2fArray.FromNumpy(np.ascontiguousarray(upward, np.float32)))

    binding = UsdSkel.BindingAPI.Apply(mesh.GetPrim())
    binding.CreateSkeletonRel().SetTargets([rig.GetPath()])
    joints = np.ascontiguousarray(surface.joints.ravel(), np.int32)
    weights = np.ascontiguousarray(surface.weights.ravel(), np.float32)
    influences = surface.joints.shape[1]
    binding.CreateJointIndicesPrimvar(False, influences).Set(Vt.IntArray.FromNumpy(joints))
    binding.CreateJointWeightsPrimvar(False, influences).Set(Vt.FloatArray.FromNumpy(weights))
    targets = []
    for name, move in surface.morphs_m.items():
        morph = UsdSkel.BlendShape.Define(stage, mesh.GetPath().AppendChild(name))
        moved = np.flatnonzero(np.abs(move).max(axis=1) > 0)
        morph.CreateOffsetsAttr(_vectors(move[moved]))
        morph.CreatePointIndicesAttr(Vt.IntArray.FromNumpy(moved.astype(np.int32)))
        targets.append(morph.GetPath())
    if targets:
        binding.CreateBlendShapesAttr(list(surface.morphs_m))
        binding.CreateBlendShapeTargetsRel().SetTargets(targets)


def _vectors(rows: Float[np.ndarray, "N 3"]) -> Any:
    return Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(rows, np.float32))


_BATCH = 16


def write_meshes(
    folder: Path,
    character: Character,
    body: BodyModel,
    kind: Literal["obj", "ply"],
    *,
    every: int = 1,
) -> None:
    """Write frame_000000.obj, ... numbered as in the video; the folder appears when complete.

    Vertices are in metres, in the character's world. Frames without the person have no file.

    Args:
        every: step in frames of the video, from the first frame of the character.
    """
    make_file = {"obj": obj_maker, "ply": ply_maker}[kind](body.faces.numpy())
    chosen = np.flatnonzero((character.frame_index - character.frame_index[0]) % every == 0)
    with atomic_path(folder) as partial:
        partial.mkdir()
        frames = _vertices(character, body, chosen)
        for number, vertices in with_progress(frames, len(chosen), "meshes"):
            (partial / f"frame_{number:06d}.{kind}").write_bytes(make_file(vertices))


def _vertices(
    character: Character, body: BodyModel, chosen: Int[np.ndarray, " K"]
) -> Iterator[tuple[int, Float32[np.ndarray, "V 3"]]]:
    """The number of each chosen keyframe in the video, and its vertices."""
    parameters = character.body_parameters(body)
    for start in range(0, len(chosen), _BATCH):
        rows = chosen[start : start + _BATCH]
        with torch.inference_mode():
            output = body(**{name: value[rows] for name, value in parameters.items()})
        assert output.vertices is not None
        yield from zip(character.frame_index[rows].tolist(), output.vertices.numpy(), strict=True)
