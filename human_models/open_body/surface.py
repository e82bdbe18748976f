"""Points on the surface of a mirror-symmetric mesh, as a face and barycentric coordinates."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64


class SurfacePoint(NamedTuple):
    face: int
    barycentric: Float64[np.ndarray, "3"]


def vertex_normals(
    vertices: Float64[np.ndarray, "N 3"], faces: Int64[np.ndarray, "F 3"]
) -> Float64[np.ndarray, "N 3"]:
    """Unit normals, faces weighted by area."""
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], np.cross(b - a, c - a))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


class Surface:
    """A mesh that finds and mirrors points on itself."""

    def __init__(
        self,
        vertices: Float64[np.ndarray, "N 3"],
        faces: Int64[np.ndarray, "F 3"],
        mirror: Int64[np.ndarray, " N"],
    ) -> None:
        self.vertices, self.faces, self._mirror = vertices, faces, mirror
        self.normals = vertex_normals(vertices, faces)
        self._face_ids = {frozenset(face): i for i, face in enumerate(faces.tolist())}
        # The first corner of any face at each vertex.
        corners, first = np.unique(faces, return_index=True)
        self._corner_of = dict(zip(corners.tolist(), first.tolist(), strict=True))

    def at_vertex(self, vertex: int) -> SurfacePoint:
        face, corner = divmod(self._corner_of[vertex], 3)
        return SurfacePoint(face, np.eye(3)[corner])

    def position(self, point: SurfacePoint) -> Float64[np.ndarray, "3"]:
        return point.barycentric @ self.vertices[self.faces[point.face]]

    def mirrored(self, point: SurfacePoint) -> SurfacePoint:
        corners = self._mirror[self.faces[point.face]].tolist()
        twin = self._face_ids[frozenset(corners)]
        order = [corners.index(vertex) for vertex in self.faces[twin].tolist()]
        return SurfacePoint(twin, point.barycentric[order])

    def faces_within(self, mask: Bool[np.ndarray, " N"]) -> Int64[np.ndarray, " f"]:
        """Faces whose corners all lie in the mask."""
        return np.flatnonzero(mask[self.faces].all(axis=1))

    def nearest_vertex(
        self, xy: Float64[np.ndarray, "2"], mask: Bool[np.ndarray, " N"]
    ) -> SurfacePoint:
        """The vertex of the mask that lies nearest as seen from the front."""
        candidates = np.flatnonzero(mask)
        offsets = self.vertices[candidates, :2] - xy
        return self.at_vertex(int(candidates[np.argmin(np.hypot(*offsets.T))]))

    def from_front(
        self, xy: Float64[np.ndarray, "2"], faces: Int64[np.ndarray, " f"]
    ) -> SurfacePoint:
        """The foremost point of some faces on the ray along z; a vertex where it misses all."""
        corners = self.vertices[self.faces[faces]]
        a, b, c = np.moveaxis(corners[:, :, :2], 1, 0)
        area = _cross(b - a, c - a)
        facing = area > 1e-12
        safe = np.where(facing, area, 1.0)
        v, w = _cross(xy - a, c - a) / safe, _cross(b - a, xy - a) / safe
        barycentric = np.stack([1 - v - w, v, w], axis=1)
        hit = facing & (barycentric >= -1e-9).all(axis=1)
        if not hit.any():
            distances = ((corners[:, :, :2] - xy) ** 2).sum(axis=2)
            face, corner = np.unravel_index(np.argmin(distances), distances.shape)
            return SurfacePoint(int(faces[face]), np.eye(3)[corner])
        depth = (barycentric * corners[:, :, 2]).sum(axis=1)
        best = int(np.argmax(np.where(hit, depth, -np.inf)))
        inside = np.clip(barycentric[best], 0, 1)
        return SurfacePoint(int(faces[best]), inside / inside.sum())


def _cross(a: Float64[np.ndarray, "f 2"], b: Float64[np.ndarray, "f 2"]) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def stacked(
    points: Iterable[SurfacePoint],
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, "n 3"]]:
    """Faces and barycentric coordinates of many points."""
    faces, barycentric = zip(*points, strict=True)
    return np.array(faces), np.array(barycentric)
