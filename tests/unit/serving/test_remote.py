"""Fetching by address: only where it is allowed, never inside the network, never too much or too long."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest

from serving.errors import PayloadTooLarge, RequestError, UrlFailed, UrlRefused
from serving.remote import Fetcher, is_public, parse_url_allow, resolve

PICTURE = b"a picture" * 100


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("127.0.0.1", id="loopback"),
        pytest.param("169.254.169.254", id="instance_metadata"),
        pytest.param("169.254.170.2", id="container_credentials"),
        pytest.param("10.1.2.3", id="private_10"),
        pytest.param("172.16.0.1", id="private_172"),
        pytest.param("192.168.0.1", id="private_192"),
        pytest.param("100.64.0.1", id="carrier"),
        pytest.param("0.0.0.0", id="any"),
        pytest.param("224.0.0.1", id="multicast"),
        pytest.param("255.255.255.255", id="broadcast"),
        pytest.param("::1", id="loopback6"),
        pytest.param("::", id="any6"),
        pytest.param("fe80::1%eth0", id="link_local6"),
        pytest.param("fd00:ec2::254", id="instance_metadata6"),
        pytest.param("::ffff:127.0.0.1", id="mapped"),
        pytest.param("::127.0.0.1", id="compatible"),
        pytest.param("64:ff9b::a9fe:a9fe", id="nat64"),
        pytest.param("2002:7f00:1::1", id="6to4"),
        pytest.param("2001:0:7f00:1::1", id="teredo"),
        pytest.param("ff02::1", id="multicast6"),
        pytest.param("2001:db8::1", id="documentation6"),
    ],
)
def test_address_inside_a_network_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["52.95.110.1", "8.8.8.8", "2600:1f18::1"])
def test_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433", "0x7f.1", "::1"])
def test_name_that_leads_inside_is_refused(host: str) -> None:
    with pytest.raises(UrlRefused, match="private network"):
        resolve(host, 80)


def refuse_to_resolve(host: str, port: int) -> str:
    raise AssertionError(f"{host}:{port} must not be looked up")


@pytest.mark.parametrize(
    ("url", "allow"),
    [
        pytest.param("https://bucket.example/a.jpg", (), id="nothing_allowed"),
        pytest.param(
            "https://bucket.example.evil.example/a.jpg", ("https://bucket.example",), id="longer_host"
        ),
        pytest.param("https://bucket.example@evil.example/", ("https://bucket.example",), id="user_name"),
        pytest.param("https://evil.example\\@bucket.example/", ("https://bucket.example",), id="backslash"),
        pytest.param("http://bucket.example/a.jpg", ("https://bucket.example",), id="other_scheme"),
        pytest.param("https://bucket.example:8443/a", ("https://bucket.example",), id="other_port"),
        pytest.param(
            "https://bucket.example/pictures2/a", ("https://bucket.example/pictures",), id="sibling"
        ),
        pytest.param("https://b.example/pictures/../x", ("https://b.example/pictures/",), id="dots"),
        pytest.param(
            "https://b.example/pictures/%2e%2E/x", ("https://b.example/pictures/",), id="hidden_dots"
        ),
        pytest.param("file:///etc/passwd", ("https://b.example/",), id="file"),
        pytest.param("https://b.example/a b", ("https://b.example/",), id="space"),
        pytest.param("https://b.example/a\r\nX: y", ("https://b.example/",), id="header"),
        pytest.param("https://b.example:99999/", ("https://b.example/",), id="port_number"),
        pytest.param("https://[::1/", ("https://b.example/",), id="brackets"),
        pytest.param("", ("https://b.example/",), id="empty"),
    ],
)
def test_address_that_is_not_allowed_is_refused_without_a_look_up(url: str, allow: tuple[str, ...]) -> None:
    with pytest.raises(UrlRefused):
        Fetcher(allow, 1000, resolve=refuse_to_resolve).fetch(url)


def test_allowed_address_inside_the_network_is_refused() -> None:
    with pytest.raises(UrlRefused, match="private network"):
        Fetcher(("http://localhost",), 1000).fetch("http://localhost/a.jpg")


@pytest.mark.parametrize("text", ["bucket", "ftp://b.example", "https://", "https://b.example:x"])
def test_prefix_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"addresses such as https://bucket\.s3"):
        parse_url_allow(f"https://a.example/, {text}")


def test_prefixes_lie_between_commas() -> None:
    assert parse_url_allow(" https://a.example/x , http://b.example,") == (
        "https://a.example/x",
        "http://b.example",
    )


class Site(NamedTuple):
    """A web server on this machine, and the names under which it was looked up."""

    port: int
    looked_up: list[str]
    hosts: list[str | None]  # of the requests

    def fetcher(self, *, max_bytes: int = 10_000, seconds: float = 5.0) -> Fetcher:
        """With a name server that knows only this machine."""

        def resolve_here(host: str, port: int) -> str:
            self.looked_up.append(host)
            return "127.0.0.1"

        allow = (self.url("pictures.example", "/"), self.url("other.example", "/"))
        return Fetcher(allow, max_bytes, seconds, resolve=resolve_here)

    def url(self, host: str, path: str) -> str:
        return f"http://{host}:{self.port}{path}"


class Handler(BaseHTTPRequestHandler):
    hosts: list[str | None]

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        getattr(self, f"answer_{self.path[1:].partition('/')[0]}", self.answer_missing)()

    def answer(self, status: int, body: bytes, *, length: int | None = None, location: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)

    def answer_picture(self) -> None:
        self.answer(200, PICTURE)

    def answer_missing(self) -> None:
        self.answer(404, b"no")

    def answer_redirect(self) -> None:
        self.answer(302, b"", location=self.path.removeprefix("/redirect/"))

    def answer_loop(self) -> None:
        self.answer(302, b"", location="/loop")

    def answer_short(self) -> None:
        self.answer(200, PICTURE, length=5000)

    def answer_drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        while True:  # until the client hangs up
            self.wfile.write(b"x")
            time.sleep(0.05)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def site() -> Iterator[Site]:
    hosts: list[str | None] = []
    handler = type("SiteHandler", (Handler,), {"hosts": hosts})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Site(server.server_port, [], hosts)
        finally:
            server.shutdown()
            thread.join()


def test_picture_is_fetched_from_the_address_that_was_looked_up(site: Site) -> None:
    body = site.fetcher().fetch(site.url("pictures.example", "/picture/a.jpg?version=2"))

    assert body == PICTURE
    assert site.looked_up == ["pictures.example"]  # once: a second look-up could answer otherwise
    assert site.hosts == [f"pictures.example:{site.port}"]


def test_redirect_to_an_allowed_place_is_followed_and_looked_up(site: Site) -> None:
    target = site.url("other.example", "/picture")

    assert site.fetcher().fetch(site.url("pictures.example", f"/redirect/{target}")) == PICTURE
    assert site.looked_up == ["pictures.example", "other.example"]


@pytest.mark.parametrize(
    ("path", "error", "sentence"),
    [
        pytest.param("/redirect/http://169.254.169.254/latest/", UrlRefused, "not under", id="metadata"),
        pytest.param("/redirect/file:///etc/passwd", UrlRefused, "not an http", id="file"),
        pytest.param("/loop", UrlFailed, "More than 3 redirects", id="loop"),
        pytest.param("/missing", UrlFailed, "status 404", id="missing"),
        pytest.param("/short", UrlFailed, "IncompleteRead", id="short"),
    ],
)
def test_answer_that_is_no_picture_is_refused(
    path: str, error: type[RequestError], sentence: str, site: Site
) -> None:
    with pytest.raises(error, match=sentence):
        site.fetcher().fetch(site.url("pictures.example", path))


def test_redirect_into_the_network_is_refused_though_its_name_is_allowed(site: Site) -> None:
    fetcher = site.fetcher()
    first = fetcher.resolve
    fetcher.resolve = lambda host, port: (
        first(host, port) if host == "pictures.example" else resolve("localhost", port)
    )

    with pytest.raises(UrlRefused, match="private network"):
        fetcher.fetch(site.url("pictures.example", f"/redirect/{site.url('other.example', '/picture')}"))


def test_large_picture_is_refused(site: Site) -> None:
    with pytest.raises(PayloadTooLarge, match="more than 100 bytes"):
        site.fetcher(max_bytes=100).fetch(site.url("pictures.example", "/picture"))


def test_dripping_answer_is_cut_and_the_time_counts_for_all_pictures(site: Site) -> None:
    fetcher = site.fetcher(seconds=0.5)
    started = time.monotonic()

    with pytest.raises(UrlFailed, match=r"more than 0\.5 s"):
        fetcher.fetch(site.url("pictures.example", "/drip"))
    with pytest.raises(UrlFailed, match=r"more than 0\.5 s"):
        fetcher.fetch(site.url("pictures.example", "/picture"))

    assert time.monotonic() - started < 4.0


def test_place_that_does_not_listen_is_a_failure_not_a_crash() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    fetcher = Fetcher((f"https://b.example:{port}/",), 100, resolve=lambda host, port: "127.0.0.1")

    with pytest.raises(UrlFailed, match=r"b\.example did not give the picture"):
        fetcher.fetch(f"https://b.example:{port}/a.jpg")
