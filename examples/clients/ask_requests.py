"""Ask the server by requests."""

from pathlib import Path

import requests

answer = requests.post(
    "http://127.0.0.1:8080/invocations",
    data=Path("picture.jpg").read_bytes(),
    headers={"Content-Type": "application/x-image", "Accept": "application/json; top=5"},
    timeout=60,
)
if not answer.ok:
    raise SystemExit(answer.json()["error"]["message"])
for prediction in answer.json()["predictions"]:
    print(f"{prediction['probability']:.3f} {prediction['label']}")
