"""Progress passes everything through and reports how far along it is."""

from utils import iteration
from utils.iteration import with_progress


def test_items_pass_and_the_log_tells(monkeypatch, caplog):
    monkeypatch.setattr(iteration, "LOG_EVERY_S", 0.0)
    with caplog.at_level("INFO", logger="utils.iteration"):
        assert list(with_progress(range(3), 4, "frames")) == [0, 1, 2]
    assert caplog.messages[1].startswith("2 of 4 frames, ")
    assert caplog.messages[1].endswith(" s left")


def test_unknown_total(monkeypatch, caplog):
    monkeypatch.setattr(iteration, "LOG_EVERY_S", 0.0)
    with caplog.at_level("INFO", logger="utils.iteration"):
        assert list(with_progress(iter("ab"), None, "frames")) == ["a", "b"]
    assert "left" not in caplog.text


def test_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(with_progress(range(3), 3, "frames")) == [0, 1, 2]
    assert "3/3" in capsys.readouterr().err
