"""What is written is read back, whatever happens to the process or the disk."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest

from training.debugging.series import (
    SERIES_FILE,
    TRAIN,
    Fact,
    Record,
    SeriesWriter,
    Step,
    System,
    Tensors,
    read_series,
)

STEP = Step(step=3, epoch=0, mode=TRAIN, time=1.5, loss=0.25, accuracy=0.5, images=8, seconds={"total": 0.1})
RECORDS: list[Record] = [
    STEP,
    Tensors(step=3, mode=TRAIN, collection="weights", values={"fc.weight": {"mean": -0.5}}),
    System(time=1.0, values={"cpu_percent": 12.5}),
    Fact(time=1.0, name="labels", value=["cat", "dog"]),
]


def test_records_are_read_as_written_before_the_writer_is_closed(tmp_path: Path) -> None:
    writer = SeriesWriter(tmp_path)
    for record in RECORDS:
        writer.add(record)

    assert read_series(tmp_path) == writer.snapshot()
    assert read_series(tmp_path).steps == [STEP]
    writer.close()


def test_line_cut_short_loses_itself_only(tmp_path: Path) -> None:
    first = SeriesWriter(tmp_path)
    first.add(STEP)
    first.close()
    with (tmp_path / SERIES_FILE).open("a") as file:
        file.write('{"kind":"step","st')  # and the process was killed

    again = SeriesWriter(tmp_path)
    again.add(STEP)
    again.close()

    assert read_series(tmp_path).steps == [STEP, STEP]
    assert again.snapshot().steps == [STEP, STEP]


def test_numbers_that_are_not_finite_come_back(tmp_path: Path) -> None:
    writer = SeriesWriter(tmp_path)
    writer.add(Fact(time=1.0, name="odd", value=[math.nan, math.inf, -math.inf]))
    writer.close()

    value = read_series(tmp_path).facts[0].value

    assert math.isnan(value[0]) and value[1:] == [math.inf, -math.inf]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_ends_the_series_and_not_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / SERIES_FILE).symlink_to("/dev/full")
    writer = SeriesWriter(tmp_path)

    with caplog.at_level(logging.WARNING):
        writer.add(STEP)
        writer.add(STEP)
    writer.close()

    assert [record.message for record in caplog.records] == [
        "the debugger's series ends here: [Errno 28] No space left on device"
    ]
    assert writer.snapshot().steps == [STEP, STEP]
