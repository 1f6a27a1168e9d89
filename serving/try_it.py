"""What people on a machine of their own use besides SageMaker's routes; KENNEL_PAGE=0 leaves it out.

    GET /                               the try-it page, of static files without a build step (serving/page/)
    GET /page/NAME                      its files
    GET /model.json                     the model card
    POST /endpoints/NAME/invocations    boto3's sagemaker-runtime with endpoint_url at this server

On SageMaker none of them can be reached.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, abort

from serving.messages import JSON, encode_json

if TYPE_CHECKING:
    from serving.app import Backend

FOLDER = Path(__file__).parent / "page"
TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "server.js": "text/javascript; charset=utf-8",
    "snippets.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
HEADERS = {
    # Nothing inline, nothing from elsewhere; blob: are the pictures that were chosen, and heat maps.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a newer image brings a newer page
}


def add_page(app: Flask, backend: Backend) -> None:
    """Add these routes."""

    def send(name: str) -> Response:
        return Response((FOLDER / name).read_bytes(), content_type=TYPES[name], headers=HEADERS)

    @app.get("/")
    def page() -> Response:
        return send("index.html")

    @app.get("/page/<name>")
    def page_file(name: str) -> Response:
        return send(name) if name in TYPES else abort(404)

    @app.get("/model.json")
    def model() -> Response:
        card: dict[str, Any] | None = backend.info.get("card")
        if card is None:
            return Response(encode_json({"status": "loading"}), status=503, content_type=JSON)
        return Response(encode_json(card), content_type=JSON)

    @app.post("/endpoints/<name>/invocations")
    def endpoint(name: str) -> Any:
        return app.view_functions["invocations"]()
