"""Against a real HTTP server on this machine, whose handler misbehaves as each test asks."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from local.archives import DownloadError
from local.download import download_archive, fetch_dataset
from tests.archives import image_zip, names_below, zip_bytes
from training.recipe import Data, Recipe

CONTENT = bytes(range(256)) * 4000  # 1 MB


@dataclass
class Server:
    """What it serves, how it misbehaves, and the Range header of each request it got."""

    url: str = ""
    content: bytes = CONTENT
    supports_range: bool = True
    shift_range: int = 0
    states_length: bool = True
    stop_after_bytes: int | None = None
    status: int = 200
    ranges: list[str | None] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    described: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.described.ranges.append(wanted)
        start = asked_start(self.described, wanted)
        if self.described.status != 200:
            self.send_error(self.described.status)
        elif start >= len(self.described.content):
            self.send_head(416, start, f"bytes */{len(self.described.content)}")
        elif start:
            end = len(self.described.content) - 1
            self.send_head(206, start, f"bytes {start}-{end}/{len(self.described.content)}")
            self.wfile.write(self.described.content[start:][: self.described.stop_after_bytes])
        else:
            self.send_head(200, 0, None)
            self.wfile.write(self.described.content[: self.described.stop_after_bytes])

    def send_head(self, status: int, start: int, content_range: str | None) -> None:
        self.send_response(status)
        if content_range:
            self.send_header("Content-Range", content_range)
        if self.described.states_length:
            self.send_header("Content-Length", str(len(self.described.content[start:])))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def asked_start(server: Server, wanted: str | None) -> int:
    if wanted is None or not server.supports_range:
        return 0
    return int(wanted.removeprefix("bytes=").removesuffix("-")) + server.shift_range


@pytest.fixture
def server() -> Iterator[Server]:
    described = Server()
    handler = type("DescribedHandler", (Handler,), {"described": described})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        described.url = f"http://127.0.0.1:{listening.server_port}/dogImages.zip"
        yield described
        listening.shutdown()
        thread.join()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "images.archive"


@pytest.fixture
def part(archive: Path) -> Path:
    return archive.with_name("images.archive.part")


def dogs(server: Server) -> Recipe:
    return Recipe(name="dogs", data=Data(url=server.url, archive_root="dogImages"))


def test_download_is_complete_and_says_its_checksum(
    server: Server, archive: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    assert download_archive(server.url, archive) == archive

    assert archive.read_bytes() == CONTENT
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]
    assert f"sha256={hashlib.sha256(CONTENT).hexdigest()}" in caplog.text
    assert f"bytes={len(CONTENT)} total_bytes={len(CONTENT)}" in caplog.text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_gets_a_bar(server: Server, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)

    download_archive(server.url, archive)

    assert "images.archive: 100%|" in terminal.getvalue()


def test_existing_archive_is_not_requested_again(server: Server, archive: Path) -> None:
    archive.write_bytes(CONTENT)

    download_archive(server.url, archive, sha256=hashlib.sha256(CONTENT).hexdigest())

    assert server.ranges == []


@pytest.mark.parametrize("stop_after_bytes", [0, 1, 300_000])
def test_truncated_download_is_detected_and_the_next_run_continues(
    stop_after_bytes: int, server: Server, archive: Path, part: Path
) -> None:
    server.stop_after_bytes = stop_after_bytes
    with pytest.raises(
        DownloadError,
        match=f"broke off after {stop_after_bytes} of {len(CONTENT)} bytes; run the same command again",
    ):
        download_archive(server.url, archive)
    assert not archive.exists()
    assert part.stat().st_size == stop_after_bytes

    server.stop_after_bytes = None
    download_archive(server.url, archive)

    assert archive.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={stop_after_bytes}-" if stop_after_bytes else None]


@pytest.mark.parametrize(
    ("misbehaviour", "requests"),
    [
        pytest.param({"supports_range": False}, 1, id="no-range-support"),
        pytest.param({"shift_range": 7}, 2, id="another-range-than-asked"),
    ],
)
def test_server_that_cannot_continue_is_read_from_the_start(
    misbehaviour: dict[str, int], requests: int, server: Server, archive: Path, part: Path
) -> None:
    part.write_bytes(b"x" * 1000)
    for name, value in misbehaviour.items():
        setattr(server, name, value)

    download_archive(server.url, archive)

    assert archive.read_bytes() == CONTENT
    assert len(server.ranges) == requests


def test_complete_part_is_renamed_without_a_download(server: Server, archive: Path, part: Path) -> None:
    part.write_bytes(CONTENT)

    download_archive(server.url, archive)

    assert archive.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_part_longer_than_the_file_is_replaced(server: Server, archive: Path, part: Path) -> None:
    part.write_bytes(CONTENT + b"more")

    download_archive(server.url, archive)

    assert archive.read_bytes() == CONTENT


def test_response_without_a_length_is_read_to_its_end(server: Server, archive: Path) -> None:
    server.states_length = False

    download_archive(server.url, archive)

    assert archive.read_bytes() == CONTENT


def test_wrong_checksum_deletes_the_download_and_names_both(
    server: Server, archive: Path, part: Path
) -> None:
    with pytest.raises(DownloadError, match=f"{hashlib.sha256(CONTENT).hexdigest()}, not {'0' * 64}"):
        download_archive(server.url, archive, sha256="0" * 64)

    assert not archive.exists()
    assert not part.exists()


@pytest.mark.parametrize("status", [403, 404, 500])
def test_refusal_names_address_and_status(status: int, server: Server, archive: Path) -> None:
    server.status = status

    with pytest.raises(DownloadError, match=f"dogImages.zip answered {status} .*check"):
        download_archive(server.url, archive)

    assert list(archive.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        pytest.param(
            "http://127.0.0.1:1/x.zip", "cannot be reached .*check the network", id="nobody-listens"
        ),
        pytest.param("file:///etc/hostname", "is not an http or https address", id="file"),
    ],
)
def test_unreachable_address_is_named(url: str, message: str, archive: Path) -> None:
    with pytest.raises(DownloadError, match=message):
        download_archive(url, archive)


def test_unwritable_folder_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"x\.part cannot be written"):
        download_archive(server.url, tmp_path / "absent" / "x")


def test_dataset_is_fetched_once_and_leaves_nothing_else(server: Server, tmp_path: Path) -> None:
    server.content = image_zip()

    root = fetch_dataset(dogs(server), tmp_path / "data")
    again = fetch_dataset(dogs(server), tmp_path / "data")

    assert root == again == tmp_path / "data" / "dogImages"
    assert names_below(tmp_path / "data") == [
        f"dogImages/{folder}/001.Affenpinscher/a.jpg" for folder in ("test", "train", "valid")
    ]
    assert len(server.ranges) == 1


def test_dataset_folders_get_their_usual_names_and_others_stay_behind(server: Server, tmp_path: Path) -> None:
    server.content = image_zip("", ("train_another", "validation_another", "test", "test_another"))
    data = Data(
        url=server.url,
        train_folder="train_another",
        valid_folder="validation_another",
        test_folder="test_another",
    )

    root = fetch_dataset(Recipe(name="tiles", data=data), tmp_path)

    assert sorted(path.name for path in root.iterdir()) == ["test", "train", "valid"]
    assert (root / "test/001.Affenpinscher/a.jpg").read_bytes() == b"test_another"


def test_rests_of_a_killed_run_are_cleared(server: Server, tmp_path: Path) -> None:
    server.content = image_zip()
    rests = tmp_path / ".dogImages.unpacking" / "dogImages" / "train" / "old"
    rests.mkdir(parents=True)
    (rests / "half.jpg").write_bytes(b"ha")

    root = fetch_dataset(dogs(server), tmp_path)

    assert not (root / "train" / "old").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["dogImages"]


def test_archive_without_the_named_folder_is_refused_listing_what_it_has(
    server: Server, tmp_path: Path
) -> None:
    server.content = image_zip("dogs/")

    with pytest.raises(DownloadError, match="no folder dogImages/train, only dogs; correct archive_root"):
        fetch_dataset(dogs(server), tmp_path)

    assert not (tmp_path / "dogImages").exists()


def test_unexpected_number_of_labels_is_said(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.content = image_zip()
    data = Data(url=server.url, archive_root="dogImages", num_classes=133)

    fetch_dataset(Recipe(name="dogs", data=data), tmp_path)

    assert "expects 133 labels, train has 1" in caplog.text


def test_folder_of_that_name_without_images_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "dogImages").mkdir()

    with pytest.raises(DownloadError, match="has no train folder; move it away"):
        fetch_dataset(dogs(server), tmp_path)


def test_recipe_without_a_source_says_its_hint(tmp_path: Path) -> None:
    recipe = Recipe(name="shapes", data=Data(hint="Draw them."))

    with pytest.raises(DownloadError, match=r"'shapes' names nothing to download\. Draw them\."):
        fetch_dataset(recipe, tmp_path)


@pytest.mark.parametrize("limit_bytes", [0, 9_999_999, 1_000])
def test_archive_over_the_limit_is_stopped_there(limit_bytes: int, server: Server, tmp_path: Path) -> None:
    server.content = zip_bytes({"dogImages/train/a/bomb.jpg": bytes(10_000_000)})
    assert len(server.content) < 20_000

    with pytest.raises(DownloadError, match=f"unpacks to more than {limit_bytes} bytes"):
        fetch_dataset(dogs(server), tmp_path, max_unpacked_bytes=limit_bytes)

    assert [path.name for path in tmp_path.iterdir()] == ["dogImages.archive"]
