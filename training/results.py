"""What a finished training job leaves under /opt/ml/output/data, and its last words."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from scoring.items import Item
from scoring.scores import score, write_scores
from training.data import ImageSet
from training.debugging.observers import FOLDER
from training.debugging.report import REPORT_FILE
from training.evaluate import Evaluation
from training.export import Exported, Trained
from training.loop import Progress, best_metrics
from training.metrics import metric_line


def write_output(
    directory: Path,
    trained: Trained,
    progress: Progress,
    test: ImageSet | None,
    exported: Exported,
) -> None:
    """metrics.json, scores.json and report.html under /opt/ml/output/data."""
    directory.mkdir(parents=True, exist_ok=True)
    precisions = [asdict(row) for row in exported.precision_table]
    history = {"history": progress.history, "best": progress.best, "precision_table": precisions}
    (directory / "metrics.json").write_text(json.dumps(history, indent=2) + "\n", encoding="utf-8")
    items = []
    if test is not None and exported.test is not None:
        items = [
            Item(path=path, label=trained.labels[target], log_probabilities=row)
            for path, target, row in zip(
                test.folder.paths, test.folder.targets, exported.test.log_probabilities, strict=True
            )
        ]
    from scoring.report import write_report  # and with it matplotlib: only the process that reports needs it

    scores = score(items, trained.labels)
    write_scores(scores, directory / "scores.json")
    write_report(
        scores,
        directory / "report.html",
        title=f"{trained.architecture}: test split",
        images_dir=test.folder.root if test else None,
        history=progress.history,
        precisions=precisions,
        facts={name: str(value) for name, value in trained.hyperparameters.items()},
        links=_link_debug_report(directory),
    )


def _link_debug_report(directory: Path) -> dict[str, str]:
    """What the training itself was like, from the page about what it is worth."""
    path = f"{FOLDER}/{REPORT_FILE}"
    return {"How the training went: curves, rules, time": path} if (directory / path).is_file() else {}


def say_last_metrics(progress: Progress, evaluation: Evaluation | None) -> None:
    for name, value in evaluation.metrics().items() if evaluation else ():
        print(metric_line(f"test_{name}", value), flush=True)
    for name, value in best_metrics(progress.history).items():
        print(metric_line(name, value), flush=True)
