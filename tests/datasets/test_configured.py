"""Datasets as configs name them."""

import pytest

from configs.schema import DataConfig
from datasets.sources import SOURCES, find_source
from utils.errors import UserError

MINE = {"images": "mine", "train": ("a.npz", "b_*.npz"), "flat_hands": True}


def test_rows_of_the_table_as_they_are():
    assert find_source("UBody", DataConfig()) == SOURCES["UBody"]


def test_config_overrides_files_and_intervals():
    config = DataConfig.model_validate(
        {"UBody_train_sample_interval": 7, "datasets": {"UBody": {"test": ("u.npz",)}}}
    )
    source = find_source("UBody", config)
    assert source.files("test") == ("u.npz",)
    assert source.files("train") == SOURCES["UBody"].files("train")
    assert (source.interval("train"), source.interval("test")) == (7, 1)
    assert source.fixes == SOURCES["UBody"].fixes


def test_set_of_ones_own():
    source = find_source("Mine", DataConfig.model_validate({"datasets": {"Mine": MINE}}))
    assert source.files("train") == ("a.npz", "b_*.npz")
    assert (source.images, source.flat_hands, source.test) == ("mine", True, None)


def test_set_like_one_of_the_table():
    inter = {"UBody_inter": {"like": "UBody", "test": ("ubody_inter.npz",)}}
    source = find_source("UBody_inter", DataConfig.model_validate({"datasets": inter}))
    assert source == SOURCES["UBody"]._replace(name="UBody_inter", test=("ubody_inter.npz",))
    unlike = DataConfig.model_validate({"datasets": {"Mine": {"like": "UBodyy"}}})
    with pytest.raises(UserError, match="'Mine' is like 'UBodyy'"):
        find_source("Mine", unlike)


def test_unknown_names_are_refused():
    config = DataConfig.model_validate({"datasets": {"Mine": MINE, "Half": {"images": "half"}}})
    with pytest.raises(UserError, match="did you mean 'SynHand'"):
        find_source("Synhand", config)
    with pytest.raises(UserError, match="did you mean 'Mine'"):
        find_source("mine", config)
    with pytest.raises(UserError, match="'Half' needs"):
        find_source("Half", config)
