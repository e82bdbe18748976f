"""Datasets as a config names them: rows of the table of sources, changed or added by the config."""

import difflib

from configs.schema import DataConfig
from datasets.sources import SOURCES, Source
from utils.errors import UserError


def find_source(name: str, config: DataConfig) -> Source:
    """The dataset of that name with the files and intervals that the config states for it.

    Raises:
        UserError: the name is neither in the table nor in `config.datasets`, or an entry there is
            incomplete.
    """
    entry = config.datasets.get(name)
    like = name if entry is None or entry.like is None else entry.like
    if like in SOURCES:
        source = SOURCES[like]._replace(name=name)
    elif entry is not None and entry.like is not None:
        raise UserError(f"data.datasets: '{name}' is like '{like}', which the table lacks")
    elif entry is None:
        known = [*SOURCES, *config.datasets]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        advice = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}."
        raise UserError(f"Unknown dataset '{name}'; {advice}")
    elif entry.images is None or (entry.train is None and entry.test is None):
        raise UserError(
            f"data.datasets: '{name}' needs 'images', and files as 'train' or 'test' or both"
        )
    else:
        source = Source(name, None, None, entry.images)
    changes = {} if entry is None else entry.model_dump(exclude_none=True, exclude={"like"})
    for split, intervals in (
        ("train", config.train_sample_interval),
        ("test", config.test_sample_interval),
    ):
        if name in intervals:
            changes[f"{split}_interval"] = intervals[name]
    return source._replace(**changes)
