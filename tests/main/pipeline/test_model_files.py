"""What MODEL_DIR may be, and fetching a published model from a hub on this machine."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from main.pipeline import model_files
from main.pipeline.model_files import find_model
from utils.errors import UserError


@pytest.fixture
def pretrained(tmp_path, monkeypatch):
    folder = tmp_path / "pretrained_models"
    folder.mkdir()
    monkeypatch.setattr(model_files, "PRETRAINED", folder)
    return folder


def make_model(folder, name, suffix):
    (folder / name).mkdir(exist_ok=True)
    weights = folder / name / f"{name}{suffix}"
    weights.write_bytes(b"weights")
    (folder / name / "config_base.py").write_text("config = {}")
    return weights


@pytest.mark.parametrize("suffix", [".pth.tar", ".safetensors"])
def test_name_under_pretrained_models(pretrained, suffix):
    weights = make_model(pretrained, "mine", suffix)
    assert find_model("mine") == ("mine", weights, weights.parent / "config_base.py")


def test_any_folder_or_file(tmp_path, pretrained):
    weights = make_model(tmp_path, "elsewhere", ".pth.tar")
    for given in (weights, weights.parent, f"{weights.parent}/"):
        assert find_model(str(given)).weights == weights


def test_only_weights_file_of_a_folder_may_have_any_name(pretrained):
    weights = make_model(pretrained, "mine", ".pth.tar")
    weights = weights.rename(weights.with_name("snapshot_5.pth.tar"))
    assert find_model("mine").weights == weights


def test_safetensors_go_first(pretrained):
    make_model(pretrained, "mine", ".pth.tar")
    weights = make_model(pretrained, "mine", ".safetensors")
    assert find_model("mine").weights == weights


def test_snapshot_of_a_training_run_finds_the_config_of_the_run(tmp_path):
    (tmp_path / "model_dump").mkdir()
    weights = tmp_path / "model_dump" / "snapshot_3.pth.tar"
    weights.touch()
    (tmp_path / "config_base.py").write_text("config = {}")
    files = find_model(str(weights))
    assert files == ("snapshot_3", weights, tmp_path / "config_base.py")
    weights.with_name("snapshot_10.pth.tar").touch()
    with pytest.raises(UserError, match=r"is a training run; name one .*snapshot_10\.pth\.tar"):
        find_model(str(tmp_path))


def test_what_is_missing_is_named(tmp_path, pretrained):
    make_model(pretrained, "whole", ".pth.tar")
    (pretrained / "no model").mkdir()
    with pytest.raises(UserError, match=r"none of pretrained_models/ \(smplest_x_h, whole\)"):
        find_model("other")
    weights = make_model(pretrained, "half", ".pth.tar")
    (weights.parent / "config_base.py").unlink()
    with pytest.raises(UserError, match=r"config_base\.py is missing"):
        find_model("half")
    weights.unlink()
    with pytest.raises(UserError, match=r"no weights in it.*half\.safetensors or half\.pth\.tar"):
        find_model("half")
    for number in (1, 2):
        (weights.parent / f"other{number}.pth.tar").touch()
    with pytest.raises(
        UserError, match=r"neither half\.safetensors nor half\.pth\.tar.*2 other weights files"
    ):
        find_model("half")
    (tmp_path / "x.txt").touch()
    with pytest.raises(UserError, match="ends in one of"):
        find_model(str(tmp_path / "x.txt"))


FILES = {"smplest_x_h.pth.tar": bytes(range(256)) * 100_000, "config_base.py": b"config = {}\n"}


class FakeHub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as fetching a file takes, byte ranges included."""

    requests: ClassVar[list[tuple[str, str | None]]] = []
    break_off_at: ClassVar[int | None] = None
    breaks_every_time: ClassVar[bool] = False

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        content = FILES.get(self.path.rsplit("/", 1)[-1])
        if content is None or "/waanqii/SMPLest-X/resolve/" not in self.path:
            self.send_error(404)
            return
        wanted = self.headers.get("Range")
        if with_body:
            self.requests.append((self.path, wanted))
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(content) - start))
        if wanted:
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
        self.end_headers()
        if with_body:
            breaks = self.breaks_every_time or not wanted
            self.wfile.write(content[start : self.break_off_at if breaks else None])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(FakeHub, "requests", [])
    point_hub_at(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


def point_hub_at(monkeypatch, address):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )


def test_published_model_is_fetched_once_and_recorded(pretrained, hub):
    files = find_model("smplest_x_h", download=True)
    assert files.weights.read_bytes() == FILES["smplest_x_h.pth.tar"]
    assert files.config.read_bytes() == FILES["config_base.py"]
    record = json.loads((pretrained / "smplest_x_h" / "fetched.json").read_text())
    assert record["smplest_x_h.pth.tar"] == {
        "repo": "waanqii/SMPLest-X",
        "bytes": len(FILES["smplest_x_h.pth.tar"]),
        "sha256": hashlib.sha256(FILES["smplest_x_h.pth.tar"]).hexdigest(),
    }
    count = len(FakeHub.requests)
    assert find_model("smplest_x_h", download=True) == files
    assert len(FakeHub.requests) == count


def test_broken_fetch_is_resumed(pretrained, hub, monkeypatch):
    monkeypatch.setattr(FakeHub, "break_off_at", 15_000_000)
    files = find_model("smplest_x_h", download=True)
    assert files.weights.read_bytes() == FILES["smplest_x_h.pth.tar"]
    ranges = [wanted for path, wanted in FakeHub.requests if path.endswith(".tar") and wanted]
    (resumed,) = ranges
    assert 0 < int(resumed.removeprefix("bytes=").removesuffix("-")) <= 15_000_000


def test_fetch_that_breaks_every_time_is_one_line(pretrained, hub, monkeypatch):
    monkeypatch.setattr(FakeHub, "break_off_at", 100)
    monkeypatch.setattr(FakeHub, "breaks_every_time", True)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(UserError, match="could not download smplest_x_h") as error:
        find_model("smplest_x_h", download=True)
    assert "\n" not in str(error.value)
    assert not (pretrained / "smplest_x_h" / "smplest_x_h.pth.tar").exists()


def test_only_what_is_absent_is_fetched(pretrained, hub):
    make_model(pretrained, "smplest_x_h", ".pth.tar")
    files = find_model("smplest_x_h", download=True)
    assert files.weights.read_bytes() == b"weights"
    assert FakeHub.requests == []


def test_nothing_is_fetched_unasked(pretrained, hub):
    with pytest.raises(UserError, match="--download"):
        find_model("smplest_x_h")
    assert FakeHub.requests == []


def test_without_a_network_one_line_says_what_to_put_where(pretrained, monkeypatch):
    point_hub_at(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(UserError, match="could not download smplest_x_h") as error:
        find_model("smplest_x_h", download=True)
    message = str(error.value)
    assert "\n" not in message
    assert str(pretrained / "smplest_x_h") in message
    assert "huggingface.co/waanqii/SMPLest-X" in message
    assert list(pretrained.iterdir()) == []


@pytest.mark.parametrize(
    "left", [[], [".cache/huggingface/download/x.incomplete"], ["fetched.json"]]
)
def test_what_a_broken_fetch_left_is_not_blamed(pretrained, left):
    folder = pretrained / "smplest_x_h"
    folder.mkdir()
    for name in left:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    with pytest.raises(UserError, match=r"huggingface\.co/waanqii.*or add --download"):
        find_model("smplest_x_h")
    (folder / "smplest_x_h.pth.tar").touch()
    with pytest.raises(UserError, match=r"config_base\.py is missing.*or add --download"):
        find_model("smplest_x_h")


def test_fetch_that_broke_off_goes_on_where_it_was(pretrained, hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    with monkeypatch.context() as broken:
        broken.setattr(FakeHub, "break_off_at", 15_000_000)
        broken.setattr(FakeHub, "breaks_every_time", True)
        with pytest.raises(UserError, match="could not download"):
            find_model("smplest_x_h", download=True)
    with pytest.raises(UserError, match="or add --download"):
        find_model("smplest_x_h")
    files = find_model("smplest_x_h", download=True)
    assert files.weights.read_bytes() == FILES["smplest_x_h.pth.tar"]


def test_name_of_a_folder_decides_with_a_trailing_slash(pretrained):
    make_model(pretrained, "mine", ".pth.tar")
    assert find_model(str(Path(pretrained) / "mine") + "/").name == "mine"
