"""What decoding JPEGs at reduced scale changes in the answers, against decoding them whole.

    python -m benchmarks.decode_scale MODEL_DIR FOLDER...

Both pass the same resize and crop and the same graph (fp32). Prints, for the pictures whose decoding differs,
the differences in pixels (of 255) and in log-probability, and how many labels change; then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from artifact.preprocess import ImageError, decode_pixels
from serving.handler import model_fn

WHOLE = 1e6  # a reducing_gap that no picture is large enough for


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    options = parser.parse_args()
    predictor = model_fn(options.model_dir, precision="fp32")
    reduced, whole = predictor.preprocess, replace(predictor.preprocess, reducing_gap=WHOLE)
    pixels, logs, labels, seconds = [], [], 0, np.zeros(2)
    files = [path for folder in options.folders for path in sorted(folder.rglob("*"))]
    paths = [path for path in files if path.suffix.lower() in (".jpg", ".jpeg")]
    for path in tqdm(paths, unit="picture"):
        body = path.read_bytes()
        try:
            started = time.perf_counter()
            first = decode_pixels(body, reduced)
            between = time.perf_counter()
            second = decode_pixels(body, whole)
            ended = time.perf_counter()
        except ImageError:
            continue
        if np.array_equal(first, second):
            continue
        seconds += (between - started, ended - between)
        pixels.append(np.abs(first.astype(float) - second).mean())
        one, other = predictor.predict(first[None])[0], predictor.predict(second[None])[0]
        logs.append(np.abs(one - other).max())
        labels += int(one.argmax() != other.argmax())
    found = {
        "pictures": len(paths),
        "decoded_at_reduced_scale": len(pixels),
        "pixel_difference_mean": round(float(np.mean(pixels)), 3) if pixels else 0.0,
        "log_probability_difference_mean": round(float(np.mean(logs)), 4) if logs else 0.0,
        "log_probability_difference_largest": round(float(np.max(logs)), 4) if logs else 0.0,
        "labels_changed": labels,
        "times_as_fast": round(float(seconds[1] / seconds[0]), 2) if pixels else 1.0,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
