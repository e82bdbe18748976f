"""Lines across a mesh along which garments can end: vertices are slid onto them."""

import numpy as np
from jaxtyping import Float, Int


def slide_to_level(
    attributes: Float[np.ndarray, "V A"], faces: Int[np.ndarray, "F 3"], column: int, level: float
) -> None:
    """Change `attributes` so that no face has corners on both sides of column == level.

    Of each edge that crosses the level, the nearer end moves along it onto the level, with all of
    its attributes (position, weights, ...); so a crossed face has either its lone corner or both
    of the others on the line.
    """
    value = attributes[:, column]
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    gap = value[edges] - level
    crossing = gap[:, 0] * gap[:, 1] < 0
    edges, gap = edges[crossing], gap[crossing]
    first_is_nearer = np.abs(gap[:, 0]) < np.abs(gap[:, 1])
    mover = np.where(first_is_nearer, edges[:, 0], edges[:, 1])
    other = np.where(first_is_nearer, edges[:, 1], edges[:, 0])
    share = np.abs(value[mover] - level) / np.abs(value[mover] - value[other])
    order = np.argsort(-share, kind="stable")  # of a vertex' edges the shortest way comes last
    mover, other, share = mover[order], other[order], share[order, None]
    attributes[mover] = (1 - share) * attributes[mover] + share * attributes[other]
    attributes[mover, column] = level
