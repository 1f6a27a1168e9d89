"""`build_and_push.sh scan`: known vulnerabilities and the list of packages, from the locks."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator

import pytest

from local.platform import free_port
from tests.conftest import REPOSITORY
from tests.registries import Checkout

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("engine")]


class Advisories(http.server.BaseHTTPRequestHandler):
    """Answers like the OSV database: one fixable vulnerability, in click."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        package = asked["package"]
        affected = {
            "package": package,
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}],
        }
        vulnerability = {"id": "KENNEL-TEST-1", "summary": "planted", "affected": [affected]}
        found = {"vulns": [vulnerability]} if package["name"] == "click" else {}
        content = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Not into the test's output."""


@pytest.fixture
def scanning(checkout: Checkout) -> Checkout:
    """A checkout with one short lock file, and what judges the report."""
    (checkout.folder / "requirements").mkdir()
    shutil.copy(REPOSITORY / "local/vulnerabilities.py", checkout.folder / "local")
    lock = "click==8.5.1 --hash=sha256:" + "a" * 64 + "\nflask==3.1.3 --hash=sha256:" + "b" * 64 + "\n"
    (checkout.folder / "requirements/training.txt").write_text(lock)
    return checkout


@pytest.fixture
def advisories() -> Iterator[str]:
    """The address of a vulnerability database."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Advisories) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


def test_scan_names_what_has_a_fix_until_it_is_excused(scanning: Checkout, advisories: str) -> None:
    scanning = scanning.with_environment(OSV_URL=advisories)

    found = scanning.push("scan", "training")
    (scanning.folder / "requirements/vulnerabilities.ignore").write_text("KENNEL-TEST-1 planted here\n")
    excused = scanning.push("scan", "training")

    assert found.returncode == 1, found.stdout
    assert "click 8.5.1: KENNEL-TEST-1 fixed in 99.0" in found.stdout
    assert excused.returncode == 0, excused.stdout
    assert "KENNEL-TEST-1 ignored: planted here" in excused.stdout
    sbom = json.loads((scanning.folder / "build/scan/training.cdx.json").read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    assert {found["name"] for found in sbom["components"]} == {"click", "flask"}


def test_scan_without_the_database_never_passes_unasked(scanning: Checkout) -> None:
    offline = scanning.with_environment(OSV_URL=f"http://127.0.0.1:{free_port()}/v1/query")

    refused = offline.push("scan", "training")
    allowed = offline.with_environment(ALLOW_OFFLINE="1").push("scan", "training")

    assert refused.returncode == 1 and "advisory database" in refused.stdout
    assert allowed.returncode == 0 and "passes WITHOUT knowing" in allowed.stdout
