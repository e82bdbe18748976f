"""What is measured on a benchmark, and by which rules.

Names of metrics: "pa_" is after similarity alignment, otherwise the part's root joint is matched;
"mpvpe" is the mean over vertices, "mpjpe" over joints; then the part. All are in millimetres.
"""

from dataclasses import dataclass
from typing import Final, Literal

from utils.errors import UserError

PARTS: Final = {
    "mpvpe": ("all", "l_hand", "r_hand", "hand", "face"),
    "mpjpe": ("body", "l_hand", "r_hand", "hand"),
}
SMPLX_METRICS: Final = tuple(
    f"{alignment}{kind}_{part}"
    for kind, parts in PARTS.items()
    for alignment in ("pa_", "")
    for part in parts
)
# Ground truth of SMPL has neither fingers nor a face.
SMPL_METRICS: Final = ("pa_mpvpe_all", "mpvpe_all", "pa_mpjpe_body", "mpjpe_body")
# Sets of hands alone put them, centred at the wrist, on a body in its rest pose: what is relative
# to a joint of that body means nothing.
HAND_SET_METRICS: Final = tuple(
    name for name in SMPLX_METRICS if name.startswith("pa_") and name.endswith("_hand")
)


@dataclass(frozen=True)
class Protocol:
    """Rules in which evaluations of the same predictions differ.

    name: as reports call it.
    gt_wrist_relative: for "mpjpe" of the hands, match the wrist of the truth too. Otherwise only
        the prediction is relative to its wrist, and the error is about the distance to the camera.
    pa_outlier_mm: leave hands with a larger "pa_mpjpe" out (and with the left one the right one).
    hand_joints: 20, or 21 with the wrist.
    """

    name: str
    gt_wrist_relative: bool = True
    pa_outlier_mm: float | None = None
    hand_joints: Literal[20, 21] = 20

    @staticmethod
    def named(name: str) -> "Protocol":
        """The protocol of that name; raises UserError where there is none."""
        if name not in PROTOCOLS:
            known = ", ".join(PROTOCOLS)
            raise UserError(f"There is no protocol '{name}'; choose one of: {known}.")
        return PROTOCOLS[name]


CORRECT: Final = Protocol("correct")
PUBLISHED: Final = Protocol("published", gt_wrist_relative=False, pa_outlier_mm=100.0)
PROTOCOLS: Final = {protocol.name: protocol for protocol in (CORRECT, PUBLISHED)}
