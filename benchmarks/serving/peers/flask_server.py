"""The classic bring-your-own-container sample: predictor.py behind Flask and gunicorn's sync workers.

gunicorn --workers CORES --bind 127.0.0.1:PORT flask_server:app
"""

from __future__ import annotations

import json

from flask import Flask, Response, request
from torch_network import Classifier


class ScoringService:
    """The sample's own shape: a model kept on a class, loaded at the first use."""

    model: Classifier | None = None

    @classmethod
    def get_model(cls) -> Classifier:
        """The model, loaded once a process."""
        if cls.model is None:
            cls.model = Classifier()
        return cls.model


app = Flask(__name__)


@app.get("/ping")
def ping() -> Response:
    """Healthy if the model loads, as in the sample."""
    ScoringService.get_model()
    return Response("\n", status=200, mimetype="application/json")


@app.post("/invocations")
def invocations() -> Response:
    """One picture -> its top labels."""
    return Response(
        json.dumps(ScoringService.get_model().classify(request.get_data())), mimetype="application/json"
    )
