"""The ratio rules of the serving benchmark, its comparison of two runs, and its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving.__main__ import parse_options, print_comparison, read_result
from benchmarks.serving.ceiling import LimitError, parse_limit
from benchmarks.serving.measure import Cell
from benchmarks.serving.open_loop import OpenLoop
from benchmarks.serving.pictures import LARGE, TYPICAL
from benchmarks.serving.plot import draw_throughput
from benchmarks.serving.report import Head, session_page
from benchmarks.serving.session import Plan, Session, num_steps
from benchmarks.serving.summary import (
    NetworkRun,
    Round,
    compare,
    picture_ratios,
    ratio_to_limit,
    ratio_to_peer,
    session_json,
    summarize,
)

# The machine halves its speed after the first round: pairs taken side by side do not notice.
DRIFTING = [Round(kennel=180, limit=200), Round(kennel=92, limit=100), Round(kennel=91, limit=100)]
HEAD = Head(today="2026-11-05", command="python -m benchmarks.serving", machine="A machine.", versions="v1.")


def make_cell(server: str, per_second: float, *, picture: str = TYPICAL) -> Cell:
    opened = OpenLoop(rate=0.7 * per_second, requests=100, p50_ms=10, p99_ms=30, p999_ms=40)
    return Cell(
        server=server,
        network="resnet50",
        picture=picture,
        per_second=per_second,
        p50_ms=50,
        p99_ms=60,
        p999_ms=70,
        single_ms=12,
        cpu_seconds_per_1000=12.5,
        memory_mb=412,
        start_seconds=0.9,
        open_loop=opened if picture == TYPICAL else None,
    )


def make_run() -> NetworkRun:
    return NetworkRun(
        network="resnet50",
        arrangements={"pinned": 201.0, "streams": 190.0},
        best_arrangement="pinned",
        rounds=DRIFTING,
        peers={"flask": (0, 20.0), "litserve": (1, 15.0)},
        patterns={"2 connections": 170.0},
    )


def make_session() -> Session:
    plan = Plan(
        servers=("kennel", "flask", "litserve", "ray"),
        networks=("resnet50",),
        pictures=(TYPICAL, LARGE),
        seconds=1,
    )
    session = Session(plan=plan, pictures={}, tell=lambda step: None)
    session.networks = {"resnet50": make_run()}
    session.cells = [make_cell("kennel", 92), make_cell("flask", 20), make_cell("kennel", 40, picture=LARGE)]
    session.cells += [make_cell("flask", 8, picture=LARGE), make_cell("litserve", 4, picture=LARGE)]
    session.pings = {"resnet50": OpenLoop(rate=20, requests=80, p50_ms=1, p99_ms=5, p999_ms=9)}
    session.failures = {"ray": "it ended with exit code 1: no space"}
    return session


def session_result(session: Session) -> dict[str, Any]:
    return session_json(session.networks, session.cells, session.pings, session.failures)


def test_ratio_to_limit_is_the_median_of_pairs_measured_side_by_side() -> None:
    assert ratio_to_limit(DRIFTING) == 0.91


def test_peer_is_compared_with_the_slices_around_it() -> None:
    assert ratio_to_peer(DRIFTING, 0, 20.0) == (180 + 92) / 2 / 20
    assert ratio_to_peer(DRIFTING, 1, 15.0) == (92 + 91) / 2 / 15


def test_best_peer_is_the_one_kennel_leads_by_the_least() -> None:
    summary = summarize(make_run())

    # flask answered more per second, but while the machine was fast
    assert summary["best_torch_peer"] == "litserve"
    assert summary["ratio_to_best_torch_peer"] == pytest.approx(6.1)
    assert summary["requests_per_second"] == {"kennel": 92, "flask": 20.0, "litserve": 15.0}
    assert (summary["limit_per_second"], summary["ratio_to_limit"]) == (100, 0.91)


def test_run_without_peers_has_no_ratio_to_one() -> None:
    summary = summarize(NetworkRun(network="resnet18", best_arrangement="pinned", rounds=DRIFTING))

    assert summary["ratio_to_best_torch_peer"] is None
    assert summary["ratio_to_limit"] == 0.91


def test_picture_ratio_is_to_the_fastest_peer_on_that_picture() -> None:
    assert picture_ratios(make_session().cells) == {"resnet50": {TYPICAL: 4.6, LARGE: 5.0}}


def test_result_survives_json_and_agrees_with_itself() -> None:
    result = session_result(make_session())

    lines = compare(json.loads(json.dumps(result)), result)

    assert len(lines) == 6  # limit, best peer, two peers, two pictures
    assert all(line.endswith("ok") for line in lines)


@pytest.mark.parametrize(
    ("theirs", "verdict"),
    [
        pytest.param(0.91, "ok", id="same"),
        pytest.param(0.83, "ok", id="nine_percent_below"),
        pytest.param(0.81, "DIFFERS", id="eleven_percent_below"),
        pytest.param(1.02, "DIFFERS", id="eleven_percent_above"),
    ],
)
def test_runs_agree_within_ten_percent(theirs: float, verdict: str) -> None:
    mine = {"networks": {"resnet50": {"ratio_to_limit": 0.91}}}
    other = {"networks": {"resnet50": {"ratio_to_limit": theirs}}}

    (line,) = compare(mine, other)
    (mirrored,) = compare(other, mine)

    assert line.endswith(verdict)
    assert mirrored.endswith(verdict)


def test_comparison_of_runs_with_nothing_in_common_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_comparison({"networks": {}}, {"networks": {"resnet50": {"ratio_to_limit": 1.0}}}) == 1
    assert "no ratio in common" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('progress\n{"networks": {}}\n', id="log_whose_last_line_it_is"),
        pytest.param('{\n  "networks": {}\n}\n', id="indented_file"),
    ],
)
def test_earlier_result_is_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "earlier").write_text(text)

    assert read_result(tmp_path / "earlier") == {"networks": {}}


def test_page_has_a_row_per_server_and_names_who_is_missing() -> None:
    session = make_session()

    page = session_page(HEAD, session, session_result(session))

    assert page.startswith("# Serving: Kennel, its peers and the limit\n\n5 November 2026. A machine.\n")
    assert "    python -m benchmarks.serving\n" in page
    assert "| resnet50 | 92.0 | 100 | 91.0% | litserve | 15.0 | 6.10 |" in page
    assert (
        "| kennel | 92.0 | 50.0 | 60.0 | 70.0 | 12.0 | 10.0 | 30.0 | 40.0 | 2.5 | 412 | 0.90 | 12.5 |" in page
    )
    assert "| flask | 8.00 | 50.0 | 60.0 | 70.0 | 12.0 | – | – | – | – | 412 | 0.90 | 12.5 |" in page
    assert "**ray**: it ended with exit code 1: no space" in page


def test_plot_of_the_same_numbers_is_the_same_file(tmp_path: Path) -> None:
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"

    for path in (first, second):
        draw_throughput({"resnet50": make_run()}, path)

    assert first.read_bytes() == second.read_bytes()
    assert b"limit" in first.read_bytes()


def test_limit_is_read_from_its_last_line() -> None:
    assert parse_limit('warning\n{"arrangement": "pinned", "per_second": 178.2}\n') == 178.2
    with pytest.raises(LimitError, match="no result"):
        parse_limit("Killed\n")


def test_only_the_first_network_of_the_issue_is_measured_on_all_pictures() -> None:
    plan = Plan(
        servers=("kennel", "flask"),
        networks=("resnet18", "resnet50"),
        pictures=(TYPICAL, LARGE),
        seconds=1,
    )

    assert plan.pictures_of("resnet50") == (TYPICAL, LARGE)
    assert plan.pictures_of("resnet18") == (TYPICAL,)
    assert num_steps(plan) == 2 * 3


def test_quick_changes_defaults_that_flags_still_override() -> None:
    quick = parse_options(["--quick", "--seconds", "2"])

    assert (quick.networks, quick.images, quick.seconds) == (["resnet18"], [TYPICAL], 2.0)
    assert len(quick.servers) == 7
    assert quick.results != parse_options([]).results


def test_ratios_need_the_typical_picture(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(["--images", LARGE])
    assert "--images needs typical" in capsys.readouterr().err
