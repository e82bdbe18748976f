"""What stands in a result folder: the schema of summary.json and of the people's files.

`main.results` writes these files, and `main.result_files` reads them by this schema.
"""

import re
from typing import Annotated, Final, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from main.tracks.rows import COLUMNS, FLAGS, PARAMETERS, RAW_COLUMNS, ROTATIONS

MAX_FRAMES: Final = 10_000_000
"""Of a clip: 92 hours at 30 frames a second."""
_MAX_SIDE_PX: Final = 1 << 20
"""The largest width or height of an image that OpenCV opens."""
PERSON_FILE: Final = re.compile(r"person_([0-9]{1,9})\.npz")
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _printable(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError("has control characters")
    return text


_Text = Annotated[str, Field(max_length=4096), AfterValidator(_printable)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Frames = Annotated[int, Field(ge=0, le=MAX_FRAMES)]
_Pair = Annotated[list[_Finite], Field(min_length=2, max_length=2)]


class _Checked(BaseModel):
    """Further keys are allowed, as later versions may write them, and not read."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class CameraSummary(_Checked):
    """Focal length and principal point in pixels."""

    focal: _Pair | None = None
    princpt: _Pair | None = None
    origin: _Text | None = None


class PersonSummary(_Checked):
    """What the summary says of one person; all of it stands in the person's file, too."""

    person: Annotated[int, Field(ge=0, lt=10**9)] | None = None
    file: Annotated[str, Field(pattern=rf"^{PERSON_FILE.pattern}$")] | None = None
    rows: _Frames | None = None
    interpolated: _Frames | None = None
    first_frame: _Frames | None = None
    last_frame: _Frames | None = None


class Summary(_Checked):
    """summary.json. Early versions of inference wrote no `camera`, `smoothing_s` and `floor`."""

    people: list[PersonSummary]
    input: _Text | None = None
    """The name of the video or image, without its folder. Never used as a path; see find_input."""
    frames: _Frames | None = None
    fps: Annotated[float, Field(ge=1e-6, le=1e6)] | None = None
    image_size: (
        Annotated[
            list[Annotated[int, Field(ge=1, le=_MAX_SIDE_PX)]], Field(min_length=2, max_length=2)
        ]
        | None
    ) = None
    body_model: _Text | None = None
    flat_hand_mean: bool | None = None
    model: _Text | None = None
    precision: _Text | None = None
    camera: CameraSummary | None = None
    smoothing_s: dict[_Text, _Finite] | None = None


class ArraySchema(NamedTuple):
    """What an array of a person's file must be.

    Attributes:
        kinds: NumPy's letters of the types that are allowed.
        shape: of a row for each frame, or of the whole array where it is a `constant`.
        low, high: of every number, both allowed.
    """

    kinds: str
    shape: tuple[int, ...]
    low: float
    high: float
    constant: bool = False


_METRES: Final = 1e12
_PIXELS: Final = 1e15
"""Beyond any honest value, and small enough that float32 can still compute with them."""
_LIMITS: Final = {
    **dict.fromkeys((*ROTATIONS, "betas", "expression"), (-1000.0, 1000.0)),
    **dict.fromkeys(("transl", "joints_3d_m"), (-_METRES, _METRES)),
    **dict.fromkeys(("princpt", "joints_2d_px", "box_xywh"), (-_PIXELS, _PIXELS)),
    "focal": (1e-6, _PIXELS),
}
_SHARE: Final = (-0.001, 1.001)
ARRAYS: Final = {
    "frame_index": ArraySchema("iu", (), 0, MAX_FRAMES - 1),
    "score": ArraySchema("fiu", (), *_SHARE),
    **{name: ArraySchema("fiu", shape, *_LIMITS[name]) for name, shape in COLUMNS.items()},
    **{
        f"raw_{name}": ArraySchema("fiu", RAW_COLUMNS[f"raw_{name}"], *_LIMITS[name])
        for name in PARAMETERS
    },
    **{
        name: ArraySchema("b", (), 0, 1) if kind == "?" else ArraySchema("fiu", (), *_SHARE)
        for name, kind in FLAGS.items()
    },
    "foot_contact": ArraySchema("b", (4,), 0, 1),
    "fps": ArraySchema("fiu", (), 1e-6, 1e6, constant=True),
    "image_size": ArraySchema("iu", (2,), 1, _MAX_SIDE_PX, constant=True),
    "body_model": ArraySchema("U", (), 0, 0, constant=True),
    "flat_hand_mean": ArraySchema("b", (), 0, 1, constant=True),
    "world_from_camera": ArraySchema("f", (4, 4), -_METRES, _METRES, constant=True),
}
"""Everything that a person's file may hold; other entries are not read."""
