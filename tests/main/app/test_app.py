"""The app: who may ask for what, the queue, what is found again after a crash, corrected boxes, and
the page in a browser."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from itertools import islice
from urllib.parse import unquote

import av
import cv2
import httpx2 as httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from main import serve
from main.app import jobs as jobs_module
from main.app.jobs import ACTIVE, Jobs
from main.app.people import Choice, as_box_file, boxes_of, flags_of, safe_name
from main.app.server import Settings, create_app
from utils.errors import UserError
from utils.files import DEMO, ROOT
from utils.source import open_source
from utils.video_write import VideoWriter

HERE = "http://127.0.0.1:7860"
PICTURE = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A short clip in which the bundled detector finds three people."""
    path = tmp_path_factory.mktemp("clip") / "three people.mp4"
    frames = open_source(DEMO / "test_video.mp4")
    with frames, VideoWriter(path, 30.0) as video:
        for frame in islice(frames, 150, 162):
            video.write(cv2.resize(frame.image, (640, 360), interpolation=cv2.INTER_AREA))
    return path


@pytest.fixture
def commands(monkeypatch):
    """What tasks run in place of the worker: Python code."""
    code = ["pass"]

    def command(module, folder):
        return {"args": [sys.executable, "-c", code[0], folder]}

    monkeypatch.setattr(jobs_module, "python_command", command)
    return code


@contextmanager
def opened(folder, **settings):
    with Jobs(folder).opened() as jobs:
        app = create_app(Settings(folder, **settings), jobs)
        with TestClient(app, base_url=HERE, follow_redirects=False) as client:
            yield client


@pytest.fixture
def client(tmp_path, commands):
    with opened(tmp_path / "jobs", limit_mb=1) as client:
        yield client


def upload(client, name="clip.png", content=PICTURE):
    answer = client.post("/api/jobs", params={"name": name}, content=content)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def start(client, job, kind="find", flags=None, **more):
    wanted = {"kind": kind, "model": "smplest_x_demo", "flags": flags or {}, **more}
    return client.post(f"/api/jobs/{job}/task", json=wanted)


def ended(client, job, patience_s=60):
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        about = client.get(f"/api/jobs/{job}").json()
        if about["task"]["state"] not in ACTIVE:
            return about
        time.sleep(0.05)
    raise AssertionError("the task does not end")


# Who may ask.


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Origin": HERE}, 201),
        ({"Host": "localhost:7860", "Origin": "http://localhost:7860"}, 201),
        ({"Host": "[::1]:7860"}, 201),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:8000"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:7860", "Origin": "http://evil.example:7860"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "[::1"}, 403),
    ],
)
def test_only_this_apps_own_page_changes_anything(client, headers, status):
    answer = client.post("/api/jobs?name=a.png", content=PICTURE, headers=headers)
    assert answer.status_code == status
    assert len(client.get("/api/jobs").json()) == (status == 201)


def test_names_that_are_made_to_lead_here_read_nothing(client):
    for path in ("/", "/api/jobs", "/api/about", "/app.js"):
        assert client.get(path, headers={"Host": "rebound.example:7860"}).status_code == 403
        assert client.get(path).status_code == 200
    headers = client.get("/").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_other_machines_need_the_token(tmp_path):
    with opened(tmp_path, host="0.0.0.0", token="secret") as client:
        named = {"Host": "studio.lan:7860"}
        for query in ("", "?token=", "?token=secre", "?token=secret%20"):
            assert client.get(f"/api/jobs{query}", headers=named).status_code == 401
        answer = client.get("/?token=secret", headers=named)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert {"HttpOnly", "SameSite=strict"} <= set(answer.headers["set-cookie"].split("; "))
        cookie = {"Cookie": "token=secret", **named}
        client.cookies.clear()
        assert client.get("/api/jobs", headers=cookie).status_code == 200
        foreign = {**cookie, "Origin": "http://evil.example"}
        assert client.post("/api/jobs?name=a.png", headers=foreign).status_code == 403


def test_files_come_from_the_jobs_own_folder_alone(client, tmp_path):
    job = upload(client)
    folder = tmp_path / "jobs" / job
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    (folder / "link.png").symlink_to(secret)
    (folder / "out").symlink_to(tmp_path)
    (folder / "page.html").write_text("<script>alert(1)</script>")
    (folder / "input" / "page.svg").write_text("<svg/>")
    os.mkfifo(folder / "pipe.png")
    assert client.get(f"/files/{job}/input/clip.png").content == PICTURE
    part = client.get(f"/files/{job}/input/clip.png", headers={"Range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, b"PNG")
    dots = "%2e%2e"
    for path in (
        *("link.png", "out/secret.png", "pipe.png", ".running", "input", ""),
        *(
            f"{dots}/{job}%2f{dots}/job.json",
            f"{dots}/{dots}/secret.png",
            f"{dots}%2f{dots}%2fsecret.png",
        ),
        *(f"input/{dots}/{dots}/{dots}/secret.png", "/etc/passwd", "%2fetc%2fpasswd", "a%00.png"),
        *("a" * 5000, "..\\..\\secret.png"),
    ):
        assert client.get(f"/files/{job}/{path}").status_code == 404, path
    for other in ("..", dots, "nobody", f"{job}%2f..%2f{job}"):
        assert client.get(f"/files/{other}/job.json").status_code == 404, other
    for name in ("page.html", "input/page.svg", "job.json"):
        answer = client.get(f"/files/{job}/{name}")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["x-content-type-options"] == "nosniff"


# Uploads and options.


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("holiday.MOV", "holiday.mov"),
        ("../../etc/passwd.mp4", "passwd.mp4"),
        ("..\\..\\a b;$(rm -rf x).png", "a_b___rm_-rf_x.png"),
        ("-rf.png", "rf.png"),
        ("日本.png", "日本.png"),
        ("überlang.mp4", "überlang.mp4"),
        ("u\u0308berlang.mp4", "überlang.mp4"),
        ("हिन्दी 2.png", "हिन्दी_2.png"),
        ("\u202egpj.\u2215a\ud800.png", "gpj__a.png"),
        ("\u1fef\u037e!.png", "clip.png"),
        ("é" * 200 + ".png", "é" * 60 + ".png"),
        ("a\0\n'\".jpg", "a.jpg"),
    ],
)
def test_names_become_harmless(client, given, kept):
    assert safe_name(given, (".mov", ".mp4", ".png", ".jpg")) == kept


@pytest.mark.parametrize("name", ["", "a", "page.html", "a.png.exe", ".png", "x" * 900 + ".svg"])
def test_what_is_no_video_or_photograph_is_refused(client, name):
    answer = client.post("/api/jobs", params={"name": name}, content=PICTURE)
    assert answer.status_code == 422
    assert "give a video or a photograph" in answer.json()["error"]
    assert client.get("/api/jobs").json() == []


def test_too_large_an_upload_leaves_nothing(client, tmp_path):
    def unannounced():
        for _ in range(5):
            yield bytes(300_000)

    for content in (bytes(1_000_001), unannounced()):
        answer = client.post("/api/jobs?name=a.mp4", content=content)
        assert answer.status_code == 413
        assert answer.json()["error"].startswith("a.mp4 is larger than 1 MB; shorten it")
    answer = client.post("/api/jobs?name=a.mp4", headers={"Content-Length": "300000001"})
    assert answer.status_code == 413
    assert client.post("/api/jobs?name=a.mp4").json() == {"error": "a.mp4 is empty"}
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == [".lock"]


def test_names_of_every_alphabet_are_kept(client, tmp_path):
    job = upload(client, name="Füße 日本.png")
    result = tmp_path / "jobs" / job / "result_Füße_日本"
    result.mkdir()
    (result / "person_001.npz").write_bytes(b"result")
    about = client.get(f"/api/jobs/{job}").json()
    assert about["name"] == "Füße 日本.png"
    assert about["files"] == [["result_Füße_日本/person_001.npz", 6]]
    assert client.get(f"/files/{job}/input/Füße_日本.png").content == PICTURE
    answer = client.get(f"/api/jobs/{job}/results.zip")
    name = answer.headers["content-disposition"].removeprefix("attachment; filename*=UTF-8''")
    assert unquote(name) == "result_Füße_日本.zip"
    assert zipfile.ZipFile(io.BytesIO(answer.content)).namelist() == [about["files"][0][0]]


def test_what_holds_no_pictures_is_refused_at_once(client, tmp_path):
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    for name, content, reason in (
        ("my notes.mp4", b"buy milk\n", "cannot read the video 'my_notes.mp4': no readable video"),
        ("notes.png", b"buy milk\n", "cannot read the image 'notes.png': damaged, or not"),
        ("cut.png", PICTURE[:-30], "cannot read the image 'cut.png': damaged, or not an image"),
        ("song.mp4", sound.read_bytes(), "'song.mp4' has no readable video: it contains only"),
    ):
        answer = client.post("/api/jobs", params={"name": name}, content=content)
        assert answer.status_code == 422
        assert answer.json()["error"].startswith(reason)
        assert "\n" not in answer.json()["error"]
    assert client.get("/api/jobs").json() == []
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"--smooth": "soft"}, "--smooth soft: give auto"),
        ({"--fps": "-1"}, "--fps -1: give a rate from 0.00001 to 1000"),
        ({"--fps": "0"}, "--fps 0: give a rate"),
        ({"--fps": "nan"}, "--fps nan: give a rate"),
        ({"--focal": "-3"}, "--focal -3: give a focal length"),
        ({"--fps": "many"}, "argument --fps"),
        ({"--export": "fbx"}, "export format 'fbx' is unknown; choose from"),
        ({"--output": "/etc"}, "--output: the app has no such option"),
        ({"--boxes": "/etc/passwd"}, "--boxes: the app has no such option"),
        ({"--set": "inference.detection.model_path=/x"}, "--set: the app has no such option"),
        ({"--keypoints": "/etc/passwd"}, "--keypoints /etc/passwd: only built-in"),
        ({"--detector": "yolo"}, "--detector yolo: use auto"),
        ({"--conf": "high"}, "--conf high: give a number from 0 to 1"),
    ],
)
def test_options_are_refused_in_the_words_of_the_command_line(client, flags, message):
    answer = start(client, upload(client), "run", flags)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(message)


def test_a_value_is_never_another_option():
    assert flags_of({"--smooth": "--boxes=/x", "--floor": "--output=/x", "--conf": "0.3"}) == [
        "--smooth=--boxes=/x",
        "--floor",
        "--set=inference.detection.conf=0.3",
    ]


def test_what_is_no_request_is_refused_in_a_line(client):
    job = upload(client)
    for content in ("", "{", "[]", '{"people": [0]}', '{"edits": [{"person": 1}]}', '{"x": 1}'):
        answer = client.put(f"/api/jobs/{job}/choice", content=content)
        assert answer.status_code == 422, content
        assert "\n" not in answer.json()["error"]
    assert start(client, job, model="/etc").json()["error"].startswith("model /etc")
    assert start(client, job, "export", formats="glb").json()["error"].startswith("there is no res")
    assert start(client, job, "again").json()["error"].startswith("there is no result yet")
    assert start(client, "nobody").status_code == 404


# The queue.


def test_tasks_run_one_at_a_time_and_are_cancelled(client, tmp_path, commands):
    commands[0] = (
        "import pathlib, subprocess, sys, time\n"
        "folder = pathlib.Path(sys.argv[1]); (folder / '.partial_x').mkdir()\n"
        "subprocess.Popen(['sleep', '60']); print('3 of 9 frames, 2.5/s, 2 s left', flush=True)\n"
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)\n"
    )
    first, second = upload(client), upload(client)
    for job in (first, second):
        assert start(client, job).status_code == 204
    assert "has a running task" in start(client, first).json()["error"]
    assert "has a running task" in client.delete(f"/api/jobs/{first}").json()["error"]
    while (about := client.get(f"/api/jobs/{first}").json())["progress"] is None:
        time.sleep(0.05)
    progress = {"stage": "Estimating", "done": 3, "total": 9, "rate": 2.5, "left": 2}
    assert about["progress"] == progress
    assert client.get(f"/api/jobs/{second}").json()["state"] == "queued"
    client.delete(f"/api/jobs/{second}/task")
    began = time.monotonic()
    client.delete(f"/api/jobs/{first}/task")
    assert ended(client, first)["state"] == ended(client, second)["state"] == "cancelled"
    assert time.monotonic() - began < 2
    assert sorted(path.name for path in (tmp_path / "jobs" / first).iterdir()) == [
        *("input", "job.json", "log.txt")
    ]
    for job in (first, second):
        assert client.delete(f"/api/jobs/{job}").status_code == 204
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == [".lock"]


def test_a_task_that_crashes_harms_nothing(client, commands):
    job = upload(client)
    for code, error in (
        ("import os; os.abort()", "the process was ended by signal 6; see the log"),
        ("import sys; print('error: no such thing'); sys.exit(2)", "no such thing"),
    ):
        commands[0] = code
        start(client, job)
        assert ended(client, job)["task"]["error"] == error
    commands[0] = "pass"
    start(client, job)
    assert ended(client, job)["state"] == "done"


def test_what_the_disk_refuses_is_a_line_and_the_queue_goes_on(client, tmp_path):
    stuck, next_one = upload(client), upload(client)
    log = tmp_path / "jobs" / stuck / "log.txt"
    log.mkdir()
    for job in (stuck, next_one):
        start(client, job)
    assert ended(client, next_one)["state"] == "done"
    answer = client.get(f"/api/jobs/{stuck}")
    assert (answer.status_code, "log.txt: Is a directory" in answer.json()["error"]) == (500, True)
    log.rmdir()
    task = client.get(f"/api/jobs/{stuck}").json()["task"]
    assert task["state"] == "failed"
    assert "log.txt: Is a directory; check free space" in task["error"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--host=0.0.0.0", "--token="), "--token: give at least eight"),
        (("--token=short",), "--token: give at least eight"),
        (("--limit-mb=0",), "--limit-mb: 0: give a whole number, 1 or more"),
        ((f"--host={'é' * 80}",), "cannot listen there"),
        (("--port=65536",), "--port 65536: cannot listen there"),
    ],
)
def test_what_nobody_can_serve_with_is_refused(flags, message, tmp_path, caplog):
    assert serve.main([*flags, f"--output={tmp_path}"]) == 2
    assert message in caplog.text


def test_boxes_found_in_other_frames_are_not_used(client):
    job = upload(client)
    client.put(f"/api/jobs/{job}/choice", json={"people": [2]})
    assert "use Find people first" in start(client, job, "run").json()["error"]
    start(client, job, "find", {"--fps": "10"})
    ended(client, job)
    client.put(f"/api/jobs/{job}/choice", json={"people": [2]})
    refused = start(client, job, "run", {"--fps": "20"}).json()["error"]
    assert refused == "--fps has changed; use Find people again"  # shown beside that option


def test_one_app_at_a_time_has_a_folder(tmp_path, commands):
    message = "another app uses it"
    with opened(tmp_path), pytest.raises(UserError, match=message), opened(tmp_path):
        pass


# Corrected boxes.


def test_corrections_reach_the_frames_between():
    found = {1: {frame: [10.0, 20.0, 30.0, 40.0] for frame in range(9)}}
    edits = [
        {"person": 1, "frame": 4, "box": [18, 20, 30, 48]},
        {"person": 2, "frame": 0, "box": [0, 0, 10, 10]},
        {"person": 2, "frame": 4, "box": [8, 0, 10, 30]},
    ]
    people = boxes_of(found, Choice.model_validate({"edits": edits}), step=4)
    assert [people[1][frame][0] for frame in range(9)] == [10, 12, 14, 16, 18, 16, 14, 12, 10]
    assert people[1][6] == [14, 20, 30, 44]
    assert people[2] == {frame: [2.0 * frame, 0, 10, 10 + 5.0 * frame] for frame in range(5)}
    content = as_box_file(people)
    assert content["8"] == [[10, 20, 30, 40]]
    assert content["2"] == [[14, 20, 30, 44], [4, 0, 10, 20]]
    chosen = boxes_of(found, Choice.model_validate({"people": [2], "edits": edits}), step=4)
    assert chosen == {2: people[2]}
    with pytest.raises(UserError, match="--person 7"):
        boxes_of(found, Choice(people=[7]), step=4)
    with pytest.raises(UserError, match="nobody is chosen"):
        boxes_of({}, Choice(), step=4)


# The whole of it.


@pytest.fixture
def served(tmp_path):
    """Starts the app as its script does; its process and its address."""
    processes = []

    def begin():
        command = [sys.executable, "-m", "main.serve", "--port=0", f"--output={tmp_path / 'jobs'}"]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process, re.search(r"http://\S+", process.stderr.readline())[0]

    yield begin
    for process in processes:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)


def test_a_killed_app_leaves_what_was_finished_and_no_half_of_a_job(served, tmp_path, clip):
    process, address = served()
    with httpx.Client(base_url=address, timeout=30) as client:
        (done, half, waiting) = (
            upload(client, content=clip.read_bytes(), name="a.mp4") for _ in "abc"
        )
        folder = tmp_path / "jobs" / done / "result_a"
        folder.mkdir()
        (folder / "person_001.npz").write_bytes(b"finished before")
        for job in (half, waiting):
            assert start(client, job).status_code == 204
        while not list((tmp_path / "jobs" / half).glob(".partial_*/found")):
            time.sleep(0.05)
    process.kill()
    process, address = served()
    with httpx.Client(base_url=address, timeout=30) as client:
        about = client.get(f"/api/jobs/{half}").json()
        assert (about["state"], about["task"]["error"]) == (
            *("failed", "the app was stopped during this task"),
        )
        assert {path.name for path in (tmp_path / "jobs" / half).iterdir()} == {
            *("input", "job.json", "log.txt")
        }
        assert [name for name, _ in client.get(f"/api/jobs/{done}").json()["files"]] == [
            "result_a/person_001.npz"
        ]
        assert client.get(f"/api/jobs/{waiting}").json()["state"] in ("running", "done")
        client.delete(f"/api/jobs/{waiting}/task")
        archive = zipfile.ZipFile(io.BytesIO(client.get(f"/api/jobs/{done}/results.zip").content))
        assert archive.read("result_a/person_001.npz") == b"finished before"


def test_in_a_browser(served, run_web, clip, tmp_path):
    damaged, large = tmp_path / "damaged.mp4", tmp_path / "large.mp4"
    damaged.write_bytes(bytes(range(256)) * 20)
    with large.open("wb") as file:
        file.truncate(300_000_001)
    _, address = served()
    run_web("use_app.mjs", address, clip, damaged, large, tmp_path, os.environ.get("PICTURES", ""))
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["tooLarge"].startswith("large.mp4 is larger than 300 MB; shorten it")
    assert found["damaged"].startswith("cannot read the video 'damaged.mp4'")
    assert found["besideSmoothing"].startswith("--smooth soft: give auto")
    assert (found["people"], found["drawnAs"], found["movedRight"]) == (3, 4, True)
    assert found["cancelledAfter"] < 2
    assert found["outcome"] == "Cancelled; nothing of it was kept."
    (row,) = found["table"]
    assert row.startswith("1 (2 of those found)")
    assert "--boxes=" in found["command"]
    assert found["overlaySeconds"] == pytest.approx(0.4, abs=0.05)
    assert found["viewerFrame"] > 0
    assert found["widthOnPhone"] == 390
    assert found["keptAfterNo"]
    # The browser also writes down refusals, and that a page asks for a job while it is deleted.
    assert not [error for error in found["errors"] if not re.search("status of 4(04|22)", error)]
    assert set(found["absent"]) <= {found["deleted"]}
    assert all(url.startswith((address, "blob:")) for url in found["requests"])
    with zipfile.ZipFile(tmp_path / "results.zip") as archive:
        assert archive.testzip() is None
        with np.load(io.BytesIO(archive.read("result_three_people/person_001.npz"))) as person:
            assert person["body_pose"].shape == (len(person["frame_index"]), 63)
        assert archive.read("result_three_people/export/person_001.glb")[:4] == b"glTF"
        assert b"<html" in archive.read("result_three_people/viewer.html")[:200]
        summary = json.loads(archive.read("result_three_people/summary.json"))
        assert summary["input"] == "three_people.mp4"
        assert summary["world"]["camera"] == "static"
