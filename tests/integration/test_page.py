"""The try-it page in a real browser: Debian's Chromium, driven by Playwright, before a real server."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from axe_core_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    FilePayload,
    Page,
    Request,
    expect,
    sync_playwright,
)

from local.endpoint import Endpoint, start_endpoint
from local.platform import REPOSITORY, free_port
from tests.bundles import draw_picture, encode_picture, make_cnn_bundle

PHOTO_SIZE = (4000, 3000)
WAIT_MS = 30_000  # a machine at work takes its time; nothing here waits for the clock
NETWORK_ERROR = "Failed to load resource"  # Chromium's own line for every 4xx and refused connection


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cnn_bundle(tmp_path_factory.mktemp("page") / "model")


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Endpoint]:
    with start_endpoint(bundle, environment={"KENNEL_WORKERS": "1"}) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on PATH; apt install chromium to run this test")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page and what must not happen on it."""

    def __init__(self, browser: Browser, url: str, **options: object) -> None:
        self.errors: list[str] = []
        self.outside: list[str] = []
        self._url = url
        self.context = browser.new_context(**options)  # type: ignore[arg-type]
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        expect.set_options(timeout=WAIT_MS)
        self.page.on("console", self._note_console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._note_request)
        self.page.goto(f"{url}/")

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _note_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self._url}/", f"blob:{self._url}/")):
            self.outside.append(request.url)

    def upload(self, *files: tuple[str, bytes]) -> None:
        """As a person does who chooses files."""
        self.page.locator("#files").set_input_files(
            [FilePayload(name=name, mimeType=mime_type(name), buffer=body) for name, body in files]
        )


def mime_type(name: str) -> str:
    return {"txt": "text/plain", "png": "image/png"}.get(name.rpartition(".")[2], "image/jpeg")


@pytest.fixture
def visit(browser: Browser, server: Endpoint) -> Iterator[Visit]:
    visit = Visit(browser, server.url)
    yield visit
    visit.context.close()
    assert visit.outside == []
    assert visit.errors == []


def test_one_picture_gets_labels_with_probabilities_and_its_latency_split(
    visit: Visit, server: Endpoint
) -> None:
    body = encode_picture("JPEG")

    visit.upload(("dog.jpg", body))

    rows = visit.page.locator("#list tbody tr")
    expect(rows).to_have_count(5)
    told = requests.post(
        f"{server.url}/invocations", body, headers={"Accept": "application/json; top=5"}, timeout=30
    ).json()["predictions"]
    assert rows.locator("th").all_inner_texts() == [row["label"] for row in told]
    assert rows.locator("td").all_inner_texts() == [f"{100 * row['probability']:.1f} %" for row in told]
    expect(visit.page.locator(".timing")).to_have_text(
        re.compile(r"decode [\d.]+ ms · infer [\d.]+ ms · in all")
    )
    expect(visit.page.locator("#card")).to_contain_text("cnn")
    expect(visit.page.locator("#status")).to_have_text("Ready")


def test_twenty_pictures_and_a_photograph_of_12_megapixels_are_all_answered(visit: Visit) -> None:
    photo = io.BytesIO()
    draw_picture().resize(PHOTO_SIZE, Image.Resampling.BILINEAR).save(photo, "JPEG")

    visit.upload(
        ("photo.jpg", photo.getvalue()),
        *((f"{number}.jpg", encode_picture("JPEG", seed=number)) for number in range(20)),
    )

    expect(visit.page.locator("#progress")).to_have_text("21 answered")
    expect(visit.page.locator("#list table:visible")).to_have_count(21)
    expect(visit.page.locator(".error:visible")).to_have_count(0)


def test_dropped_and_pasted_pictures_are_answered(visit: Visit) -> None:
    give = """([kind, base64]) => {
        const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], `${kind}.png`, { type: "image/png" }));
        const event = kind === "drop" ? new DragEvent(kind, { dataTransfer: data, bubbles: true })
            : new ClipboardEvent(kind, { clipboardData: data, bubbles: true });
        document.body.dispatchEvent(event);
    }"""
    for kind in ("drop", "paste"):
        visit.page.evaluate(give, [kind, base64.b64encode(encode_picture("PNG")).decode()])

    expect(visit.page.locator("#list table:visible")).to_have_count(2)


def test_what_is_no_picture_is_refused_in_plain_words(browser: Browser, server: Endpoint) -> None:
    visit = Visit(browser, server.url)

    visit.upload(("notes.txt", b"hello"), ("renamed.jpg", b"hello"), ("dog.jpg", encode_picture("JPEG")))

    errors = visit.page.locator(".error:visible")
    expect(errors).to_have_count(2)
    expect(errors.nth(0)).to_contain_text(
        re.compile("This is not a picture.*Choose a JPEG, PNG or WebP file", re.DOTALL)
    )
    expect(errors.nth(1)).to_contain_text("This file is not a picture, or a broken one.")
    expect(visit.page.locator("#list table:visible")).to_have_count(1)
    assert [error for error in visit.errors if NETWORK_ERROR not in error] == []
    visit.context.close()


def test_heat_map_is_shown_and_taken_away_again(visit: Visit) -> None:
    visit.upload(("dog.jpg", encode_picture("JPEG")))
    expect(visit.page.locator("#list table")).to_be_visible()
    picture = visit.page.locator("figure img")

    visit.page.get_by_role("switch", name="Heat map").check()

    expect(picture).to_have_attribute("alt", "dog.jpg with heat map")
    expect(picture).to_have_js_property("naturalWidth", 224)
    visit.page.get_by_role("switch", name="Heat map").uncheck()
    expect(picture).to_have_attribute("alt", "dog.jpg")


def test_server_that_goes_down_is_told_and_asked_again_when_it_is_back(
    bundle: Path, browser: Browser
) -> None:
    port, settings = free_port(), {"KENNEL_WORKERS": "1"}
    with start_endpoint(bundle, port=port, environment=settings) as endpoint:
        visit = Visit(browser, endpoint.url)
        expect(visit.page.locator("#status")).to_have_text("Ready")

    visit.upload(("dog.jpg", encode_picture("JPEG")))

    expect(visit.page.locator(".error")).to_contain_text("The server does not answer.")
    expect(visit.page.locator("#status")).to_have_text("The server does not answer")
    with start_endpoint(bundle, port=port, environment=settings):
        expect(visit.page.locator("#status")).to_have_text("Ready")
        visit.page.get_by_role("button", name="Try again").click()
        expect(visit.page.locator("#list table")).to_be_visible()
        visit.context.close()
    assert [error for error in visit.errors if NETWORK_ERROR not in error] == []


def test_keyboard_alone_chooses_explains_and_picks_a_program(visit: Visit) -> None:
    page = visit.page
    expect(page.locator("#heat-switch")).to_be_attached()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Tab")
        expect(page.locator("#files")).to_be_focused()  # by then the chooser is waited for, too
        page.keyboard.press("Enter")
    chooser.value.set_files(
        [FilePayload(name="dog.jpg", mimeType="image/jpeg", buffer=encode_picture("JPEG"))]
    )
    expect(page.locator("#list table")).to_be_visible()

    press_tab_until(page, "heat")
    page.keyboard.press("Space")
    expect(page.locator("figure img")).to_have_attribute("alt", "dog.jpg with heat map")
    press_tab_until(page, "boto3")
    page.keyboard.press("Enter")
    expect(page.locator("#code")).to_contain_text("import boto3")
    press_tab_until(page, "copy")
    page.keyboard.press("Enter")
    expect(page.locator("#copied")).not_to_be_empty()
    press_tab_until(page, "clear", backwards=True)
    page.keyboard.press("Enter")
    expect(page.locator("#answers")).to_be_hidden()


def press_tab_until(page: Page, name: str, *, backwards: bool = False) -> None:
    """The focus is on the element with this id or text; fails where no Tab leads there."""
    for _ in range(30):
        page.keyboard.press("Shift+Tab" if backwards else "Tab")
        if name in page.evaluate("[document.activeElement.id, document.activeElement.textContent]"):
            return
    raise AssertionError(f"no Tab leads to {name}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone_and_axe_finds_nothing_serious(
    browser: Browser, server: Endpoint, scheme: str
) -> None:
    visit = Visit(browser, server.url, viewport={"width": 400, "height": 800}, color_scheme=scheme)
    expect(visit.page.locator("#status")).to_have_text("Ready")
    visit.upload(("a-name-that-is-longer-than-a-phone-is-wide-" * 3 + ".jpg", encode_picture("JPEG")))
    visit.upload(("notes.txt", b"hello"))
    expect(visit.page.locator("#list table:visible")).to_have_count(1)
    visit.page.locator("#labels summary").click()

    found = Axe().run(visit.page)

    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 400
    serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in serious] == []
    assert visit.errors == []
    visit.context.close()


@pytest.mark.parametrize(
    ("language", "file"),
    [
        ("curl", "curl.sh"),
        ("boto3", "ask_boto3.py"),
        ("Python", "ask_requests.py"),
        ("JavaScript", "ask.mjs"),
    ],
)
def test_programs_of_the_page_are_those_of_the_examples(
    visit: Visit, server: Endpoint, language: str, file: str
) -> None:
    visit.page.get_by_role("button", name=language, exact=True).click()

    example = (REPOSITORY / "examples/clients" / file).read_text()
    assert visit.page.locator("#code").text_content() == example.replace("http://127.0.0.1:8080", server.url)


def test_page_allows_no_inline_code_and_no_other_origin(server: Endpoint) -> None:
    answer = requests.get(f"{server.url}/", timeout=30)

    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", answer.text)


def test_page_can_be_left_out(bundle: Path) -> None:
    with start_endpoint(bundle, environment={"KENNEL_WORKERS": "1", "KENNEL_PAGE": "0"}) as endpoint:
        paths = ("/", "/page/page.js", "/model.json")

        assert [requests.get(endpoint.url + path, timeout=30).status_code for path in paths] == [404] * 3
        assert requests.get(f"{endpoint.url}/ping", timeout=30).status_code == 200
