"""Figures that papers published, to stand beside one's own, and the mean of the primary errors."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from rich.table import Table

from main.testing.metric_table import MeanAndCount

PRIMARY_METRICS: Final = {
    "AGORA": "mpvpe_all",
    "UBody": "mpvpe_all",
    "EgoBody_Egocentric": "mpvpe_all",
    "PW3D": "mpjpe_body",
    "EHF": "mpvpe_all",
}
"""The five benchmarks whose mean the papers call MPE, and the metric of each."""
MPE: Final = "mpe"
NOTE: Final = (
    "The papers' own figures, at second hand and not verified here; the splits, the ground truth "
    "and the protocol behind them may differ from this run's."
)


class Published(NamedTuple):
    """What a paper says of a method, millimetres by our names of metrics."""

    method: str
    figures: Mapping[str, float]


_MPE_FIGURES: Final = {
    "SMPLest-X-L40": 59.57,
    "SMPLer-X-L40": 60.32,
    "SMPLer-X-S32": 82.6,
    "SMPLer-X-B32": 74.3,
    "SMPLer-X-L32": 66.2,
    "SMPLer-X-H32": 63.0,
    "SMPLer-X-H32*": 59.7,
    "SMPLer-X-H32, balanced sampling": 63.08,
    "SMPLer-X-H32, weighted sampling": 62.12,
    "SMPLer-X-H32, concatenated": 63.32,
}
PUBLISHED: Final[Mapping[str, tuple[Published, ...]]] = {
    "UBody": (
        Published(
            "SMPLest-X-H40",
            {
                "pa_mpvpe_all": 27.8,
                "pa_mpvpe_hand": 7.9,
                "pa_mpvpe_face": 2.5,
                "mpvpe_all": 51.1,
                "mpvpe_hand": 32.9,
                "mpvpe_face": 21.4,
            },
        ),
        Published(
            "SMPLest-X-H40, finetuned",
            {
                "pa_mpvpe_all": 26.9,
                "pa_mpvpe_hand": 8.4,
                "pa_mpvpe_face": 2.4,
                "mpvpe_all": 50.2,
                "mpvpe_hand": 31.8,
                "mpvpe_face": 18.9,
            },
        ),
    ),
    "MPE": tuple(Published(method, {MPE: value}) for method, value in _MPE_FIGURES.items()),
}
"""Name of a benchmark -> what was published of it."""


def mean_primary_error(
    means_by_dataset: Mapping[str, Mapping[str, MeanAndCount]],
) -> MeanAndCount | None:
    """Mean of the five primary errors (millimetres) over 5; None where one of them is missing."""
    errors = [
        means_by_dataset.get(dataset, {}).get(metric, {"mean": None, "count": 0})["mean"]
        for dataset, metric in PRIMARY_METRICS.items()
    ]
    known = [error for error in errors if error is not None]
    if len(known) < len(errors):
        return None
    return {"mean": sum(known) / len(known), "count": len(known)}


def comparison_table(benchmark: str, means: Mapping[str, MeanAndCount]) -> Table | None:
    """This run beside what was published of a benchmark; None where nothing was."""
    published = PUBLISHED.get(benchmark, ())
    metrics = list(dict.fromkeys(name for one in published for name in one.figures))
    if not published:
        return None
    table = Table(title=f"{benchmark}, mm", caption=NOTE, caption_justify="left")
    table.add_column("method")
    for name in metrics:
        table.add_column(name, justify="right")
    ours = [means[name]["mean"] if name in means else None for name in metrics]
    table.add_row("this run", *("-" if mean is None else f"{mean:.2f}" for mean in ours))
    for one in published:
        table.add_row(one.method, *(f"{one.figures[name]:g}" for name in metrics))
    return table
