"""The table and report.json."""

import json

from main.pipeline.clips import ClipReport, table, write_report

REPORTS = [
    ClipReport("a/walk.mp4", "done", 30, 2, 1.25),
    ClipReport("b.mp4", "finished before", 10, 1),
    ClipReport("preview.mp4", "finished before"),
    ClipReport("bad.mp4", "failed", seconds=0.1, reason="no video"),
]


def test_table():
    assert table(REPORTS) == [
        "clip         frames  people  seconds",
        "a/walk.mp4       30       2      1.2",
        "b.mp4            10       1  finished before",
        "preview.mp4       -       -  finished before",
        "bad.mp4      failed: no video",
        "1 done, 1 failed, 2 finished before",
    ]


def test_long_table_shows_failures():
    lines = table([REPORTS[0]] * 500 + [REPORTS[3]])
    assert lines[1:] == ["bad.mp4  failed: no video", "500 done, 1 failed"]


def test_report_file(tmp_path):
    path = tmp_path / "new" / "report.json"
    write_report(path, {"model": "m"}, REPORTS, 9.87654)
    content = json.loads(path.read_text())
    assert (content["done"], content["finished_before"], content["failed"]) == (1, 2, 1)
    assert (content["model"], content["seconds"]) == ("m", 9.877)
    assert content["clips"][3] == {
        "clip": "bad.mp4",
        "status": "failed",
        "frames": None,
        "people": None,
        "seconds": 0.1,
        "reason": "no video",
    }
    assert [path.name for path in path.parent.iterdir()] == ["report.json"]
