"""Progress for people who watch, and for logs."""

from __future__ import annotations

import logging

import pytest

from training import progress as progress_module
from training.progress import progress


def test_items_pass_through_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(5), total=5, what="count")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == ""  # five items in no time: nothing to say


def test_log_gets_plain_lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "LINE_SECONDS", 0.0)

    with caplog.at_level(logging.INFO):
        list(progress("ab", total=2, what="decode train"))

    assert [message.split(" per_second")[0] for message in caplog.messages] == [
        "decode train: 1/2",
        "decode train: 2/2",
    ]


def test_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)

    list(progress(range(3), total=3, what="transform"))

    assert "transform" in capsys.readouterr().err
