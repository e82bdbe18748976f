"""What is drawn: meshes that know their colours; those of people from figures and looks."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32

from datasets.synthetic.figures import Figure
from datasets.synthetic.people import Look
from datasets.synthetic.textures import Texture


class Mesh(NamedTuple):
    """A thing or a dressed person in the camera frame (metres: x right, y down, z forward)."""

    points: Float32[np.ndarray, "V 3"]
    normals: Float32[np.ndarray, "V 3"]
    """Of length 1, outward."""
    tint: Float32[np.ndarray, "V 3"]
    """RGB by which the texture is multiplied."""
    uv: Float32[np.ndarray, "V 2"]
    """In sides of the texture."""
    gloss: Float32[np.ndarray, " V"]
    faces: Int32[np.ndarray, "F 3"]
    two_sided: Bool[np.ndarray, " F"]
    texture: Int32[np.ndarray, " V"]
    """Number in `textures`; the same at all corners of a face."""
    textures: tuple[Texture, ...]


def person_mesh(figure: Figure, look: Look, transl: Float32[np.ndarray, "3"]) -> Mesh:
    """A posed body with its clothes and hair on, moved by `transl`."""
    points = figure.points[look.points]
    normals = unit_normals(points, look.faces)
    points += normals * look.thickness[:, None]
    if look.hair is not None and look.hair_faces is not None:
        hair = slice(len(points) - len(look.hair), None)
        points[hair] += look.hair @ figure.head.T
        normals[hair] = unit_normals(points[hair], look.hair_faces)
    normals[len(normals) - len(look.bumps) :] += look.bumps
    return Mesh(
        points=points + transl,
        normals=normals,
        tint=look.tint,
        uv=look.uv,
        gloss=look.gloss,
        faces=look.faces,
        two_sided=look.two_sided,
        texture=look.texture,
        textures=look.textures,
    )


def unit_normals(
    points: Float32[np.ndarray, "V 3"], faces: Int32[np.ndarray, "F 3"]
) -> Float32[np.ndarray, "V 3"]:
    """Outward: mean of the adjoining faces weighted by area."""
    x, y, z = (np.ascontiguousarray(column) for column in points.T)
    a, b, c = (np.ascontiguousarray(column) for column in faces.T)
    ux, uy, uz = x[b] - x[a], y[b] - y[a], z[b] - z[a]
    vx, vy, vz = x[c] - x[a], y[c] - y[a], z[c] - z[a]
    corners = np.concatenate([a, b, c])
    normals = np.empty((len(points), 3), np.float32)
    for axis, face in enumerate((uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx)):
        normals[:, axis] = np.bincount(corners, np.tile(face, 3), len(points))
    lengths = np.sqrt(np.einsum("vc,vc->v", normals, normals))
    return normals / np.maximum(lengths, 1e-12)[:, None]


def gather(meshes: Sequence[Mesh]) -> Mesh:
    """Join meshes, in their order; there is at least one."""
    points = np.cumsum([0, *(len(mesh.points) for mesh in meshes)])
    textures = np.cumsum([0, *(len(mesh.textures) for mesh in meshes)])
    shifted = [
        mesh._replace(
            faces=mesh.faces + np.int32(points[i]), texture=mesh.texture + np.int32(textures[i])
        )
        for i, mesh in enumerate(meshes)
    ]
    joined = {
        name: np.concatenate([getattr(mesh, name) for mesh in shifted])
        for name in Mesh._fields
        if name != "textures"
    }
    return Mesh(**joined, textures=tuple(texture for mesh in meshes for texture in mesh.textures))
