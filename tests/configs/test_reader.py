"""Configs are data: read, merged, overridden, saved and refused."""

import os
import time
from pathlib import Path

import pytest

from configs.reader import load_config, parse_override, save_config
from configs.schema import IGNORED_KEYS
from utils.errors import UserError

PARITY = Path(__file__).parents[1] / "parity" / "config_base.py"
CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("config_*.py"))


def test_published_form_is_read_as_it_is(caplog):
    caplog.set_level("DEBUG", logger="configs.schema")
    config = load_config(PARITY)
    assert config.model.princpt == (96, 128)
    assert config.data.train_sample_interval == {"BEDLAM": 5}
    assert config.model.encoder_config.depth == 3
    (record,) = caplog.records
    assert record.levelname == "DEBUG"
    assert "train.num_gpus" in record.message
    assert "log" in record.message


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_of_the_project_loads_without_ignored_keys(path, caplog):
    caplog.set_level("DEBUG", logger="configs.schema")
    load_config(path)
    assert not caplog.messages


def test_config_is_a_path_or_a_name_in_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("config_smplest_x_h.py") == load_config(
        CONFIGS[0].parent / "config_smplest_x_h.py"
    )
    Path("config_smplest_x_h.py").write_text("base = 'gone.py'\nconfig = {}")
    with pytest.raises(UserError, match=r"`base` 'gone\.py' is not a file"):
        load_config("config_smplest_x_h.py")  # a file here comes first
    for name in ("none.py", "../configs/config_debug.py", "/none/config_debug.py"):
        with pytest.raises(
            UserError, match=r"no such config file; .* config_smplest_x_h\.py"
        ) as error:
            load_config(name)
        assert str(error.value).startswith(f"{name}: ")
        assert "\n" not in str(error.value)


def test_saved_config_loads_back_equal(tmp_path):
    config = load_config(PARITY, ["train.lr=3e-4", "data.trainset_humandata=('A', 'B')"])
    save_config(config, tmp_path / "config_base.py")
    assert load_config(tmp_path / "config_base.py") == config
    assert config.train.lr == 3e-4


def test_base_is_merged_key_by_key(tmp_path):
    config = load_config(CONFIGS[0].parent / "config_smplest_x_b.py")
    huge = load_config(CONFIGS[0].parent / "config_smplest_x_h.py")
    assert config.model.encoder_config.depth == 12
    assert config.model.encoder_config.patch_size == huge.model.encoder_config.patch_size
    assert config.train == huge.train


def test_base_is_beside_the_config_or_anywhere_or_in_configs(tmp_path, monkeypatch):
    mine = tmp_path / "mine" / "config.py"
    mine.parent.mkdir()
    monkeypatch.chdir(tmp_path)

    def batch_with(base):
        mine.write_text(f"base = {base!r}\nconfig = {{}}")
        return load_config(mine).train.train_batch_size

    debug = load_config("config_debug.py").train.train_batch_size
    assert batch_with("config_debug.py") == debug
    assert batch_with(str(CONFIGS[0].parent / "config_debug.py")) == debug
    for place, count in (("config_debug.py", 77), ("mine/config_debug.py", 78)):
        text = f"base = {str(CONFIGS[0])!r}\nconfig = {{'train': {{'train_batch_size': {count}}}}}"
        (tmp_path / place).write_text(text)
    assert batch_with("../config_debug.py") == 77
    assert batch_with("config_debug.py") == 78  # beside the config, before configs/


def test_base_that_leads_back_is_an_error(tmp_path):
    (tmp_path / "a.py").write_text('base = "b.py"\nconfig = {}')
    (tmp_path / "b.py").write_text('base = "a.py"\nconfig = {}')
    with pytest.raises(UserError, match="form a cycle"):
        load_config(tmp_path / "a.py")


@pytest.mark.parametrize(
    "value",
    [
        "__import__('os').system('touch {marker}')",
        "open('{marker}', 'w')",
        "[x for x in (1, 2)]",
        "{**{'a': 1}}",
        "(lambda: 1)()",
        "'a' * 1000000000",
        "f'{1}'",
        "1 / 0",
    ],
)
def test_code_is_refused_and_not_run(tmp_path, value):
    marker = tmp_path / "ran"
    value = value.replace("{marker}", str(marker))
    (tmp_path / "c.py").write_text('config = {"data": {"data_dir": ' + value + "}}")
    with pytest.raises(UserError, match=r"c\.py:1: .* is not plain data"):
        load_config(tmp_path / "c.py")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os\nconfig = {}", "nothing else"),
        ("config = {", "not valid Python"),
        ("x = 1", "nothing else"),
        ("'''nothing'''", "no dict named"),
        ("config = 3", "no dict named"),
        ("base = 3\nconfig = {}", "file name in quotes"),
        ("base = 'gone.py'\nconfig = {}", r"`base` 'gone\.py' is not a file; give a path from"),
        ("base = '/none.py'\nconfig = {}", r"`base` '/none\.py' is not a file; give a path from"),
        ("base = '/etc'\nconfig = {}", "it is a folder, not a file"),
        ("base = '../configs/config_debug.py'\nconfig = {}", "is not a file; give a path from"),
        ("base = '" + "a" * 5000 + "'\nconfig = {}", "is not a file; give a path from"),
        ("base = 'a\\0b'\nconfig = {}", r"`base` 'a\\x00b' is not a file; give a path from"),
        ("config = {'a': '\0'}", "null bytes"),
        ("config = " + "[" * 100_000, "nested"),
        ("config = {'a': " + "-" * 100_000 + "1}", "nested"),
        ("config = {'a': " + "+".join(["1"] * 60_000) + "}", "nested"),
        ("config = {'a': " + "a." * 50_000 + "b}", "nested"),
        ("config = {'a': " + "9" * 5000 + "}", "not valid Python"),
        ("config = {'a': " + "*".join(["9" * 4000] * 200) + "}", "is not plain data"),
        ("config = {'a': " + "*".join(["999999999"] * 200) + "}", "is not plain data"),
        ("config = {'a': 1e999}", "is not plain data"),
        ("config = {'a': 1 / 0}", "is not plain data"),
        ("config = {'a': 1" + "0" * 400 + " / 3}", "is not plain data"),
        ("config = {'a': 'b\\0'}", "contains a NUL"),
    ],
    ids=range(24),
)
def test_wrong_file_is_one_line(tmp_path, text, message):
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_config(tmp_path / "c.py")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lrr=1", "did you mean 'lr'"),
        ("model.encoder_config.dept=1", "did you mean 'depth'"),
        ("data.train_sample_intervall={}", "did you mean 'train_sample_interval'"),
        ("trian.lr=1", "did you mean 'train'"),
        ("train.lr=fast", "train.lr"),
        ("train.lr=-1", "greater than 0"),
        ("train.seed=-1", "greater than or equal to 0"),
        ("train.seed=4294967296", "less than 4294967296"),
        ("model.focal=(5000, 0)", "greater than 0"),
        ("model.focal=(5000, 1e17)", "less than or equal to 1000000"),
        ("model.princpt=(1e17, 0)", "less than or equal to 1000000"),
        ("model.input_img_shape=(0, 384)", "greater than 0"),
        ("model.input_body_shape=(256, -192)", "greater than 0"),
        ("model.output_hm_shape=(0, 0, 0)", "greater than 0"),
        ("train.lr", "section.key=value"),
        ("train..lr=1", "section.key=value"),
        ("model.encoder_config.num_heads=5", "not a multiple of num_heads"),
        ("model.decoder_config.feat_dim=97", "must equal"),
    ],
)
def test_wrong_override_names_what_is_wrong(override, message):
    with pytest.raises(UserError, match=message) as error:
        load_config(PARITY, [override])
    is_theirs = error.value.setting == "set" or f"{PARITY} with overrides: " in str(error.value)
    assert is_theirs, "errors of the file and of the changes look alike"
    assert "--set" not in str(error.value)  # who calls this from Python gave no flag
    assert "\n" not in str(error.value)


def test_missing_section_is_named(tmp_path):
    (tmp_path / "c.py").write_text("config = {}")
    with pytest.raises(UserError, match="'model' is missing"):
        load_config(tmp_path / "c.py")


def test_override_values():
    assert parse_override("a.b=1e-5") == (["a", "b"], 1e-5)
    assert parse_override("a.b=./some/path") == (["a", "b"], "./some/path")
    assert parse_override("a.b=(192 / 2, None)") == (["a", "b"], (96.0, None))


def test_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_config(PARITY).train.lr = 1  # type: ignore[misc]


def test_every_ignored_key_has_a_reason():
    assert all(IGNORED_KEYS.values())


def test_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "c.py")
    with pytest.raises(UserError, match="named pipe"):
        load_config(tmp_path / "c.py")
    (tmp_path / "d.py").write_text("base = 'c.py'\nconfig = {}")
    with pytest.raises(UserError, match="named pipe"):
        load_config(tmp_path / "d.py")


def test_long_chain_of_bases_is_refused(tmp_path):
    for i in range(100):
        (tmp_path / f"{i}.py").write_text(f"base = '{i + 1}.py'\nconfig = {{}}")
    with pytest.raises(UserError, match="more than 20 files"):
        load_config(tmp_path / "0.py")


@pytest.mark.parametrize(
    "override",
    [
        "train.lr=" + "9" * 5000,
        "train.lr=1e999",
        "train.lr=nan",
        "train.lr=1/0",
        "train.lr=" + "-" * 100_000 + "1",
        "train.lr=" + "(" * 5000 + "1" + ")" * 5000,
        "train.lr=" + "+".join(["1"] * 60_000),
        "train.lr=1" + "0" * 400 + "/3",
        "a." * 50_000 + "b=1",
        "data.data_dir=a\0b",
    ],
    ids=range(10),
)
def test_strange_override_is_one_line(override):
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        load_config(CONFIGS[0], [override])
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 5
