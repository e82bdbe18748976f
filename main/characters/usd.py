"""A character as UsdSkel: the same skeleton, surfaces, morphs and motion as the .glb.

Needs the package usd-core, which is not installed with the rest.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from human_models.files import BodyData
from main.characters.character import Character
from main.characters.surfaces import Morphs, make_layers, make_morphs, make_skeleton
from utils.errors import UserError
from utils.files import atomic_path
from utils.mesh import Skeleton, Surface

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
    """Raises UserError where usd-core is not installed."""
    if Usd is None:
        raise UserError("--format usd needs the package usd-core: .venv/bin/pip install usd-core")


def write_usd(
    path: Path, character: Character, body: BodyData, person: int, *, clothes: bool = True
) -> None:
    """Write a .usdc of a character whose world is y up: metres, time codes are the video's frames.

    Raises:
        UserError: usd-core is not installed, or the path is not in UTF-8.
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
                f"{path}: USD files take names in UTF-8 only; say --output DIR"
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
    bind[:, 3, :3] = skeleton.positions_m  # rows are what USD multiplies from the left
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
