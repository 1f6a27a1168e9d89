"""Files that a trained model would file elsewhere: confident learning, by cleanlab.

cleanlab wants probabilities of pictures the model has not learnt from. Those of valid and test are that
(valid but for the choice of the epoch); train's are over-confident, so that it finds fewer there. For train
give `rank_suspects` out-of-fold probabilities, as benchmarks/doctor_mislabelled.py --folds does.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifact.bundle import Bundle, read_bundle, unpack_artifact
from artifact.cores import available_cores
from artifact.predictions import log_softmax
from artifact.preprocess import read_pixels
from training.doctor.files import FileFacts
from training.doctor.findings import HELD_OUT
from training.doctor.suspects import Suspect
from training.progress import progress

BATCH_SIZE = 64
FEWEST_SUSPECTS = 40  # what a person looks through in a few minutes
TRAINED_ON = ("train", "")  # without splits nobody knows what the model has seen


class ArtifactMismatchError(ValueError):
    """The artifact's labels are not the data set's."""


def find_suspects(
    facts: Sequence[FileFacts], data: Path, artifact: Path, *, splits: Sequence[str] = HELD_OUT
) -> list[Suspect]:
    """Suspects of the named splits, the least believable label first. `artifact`: model.tar.gz or its folder.

    Unreadable files and labels the model does not know are passed by. Raises ArtifactMismatchError where it
    knows none of them, BundleError where the artifact cannot be used.
    """
    chosen = [fact for fact in facts if fact.split in splits and not fact.reason]
    with open_artifact(artifact) as bundle:
        labels = bundle.manifest.labels
        known = [fact for fact in chosen if fact.label in labels]
        if chosen and not known:
            raise ArtifactMismatchError(
                f"{artifact} knows {', '.join(labels[:5])}, and none of them is a class folder in {data}; "
                "give the artifact that was trained on this data set."
            )
        probabilities = predict_files(bundle, data, [fact.path for fact in known])
    suspects: list[Suspect] = []
    # What a model says of its own training images follows other thresholds.
    for is_trained_on in (False, True):
        rows = [row for row, fact in enumerate(known) if (fact.split in TRAINED_ON) is is_trained_on]
        suspects += rank_suspects([known[row] for row in rows], probabilities[rows], labels)
    return sorted(suspects, key=lambda suspect: (not suspect.is_likely, suspect.quality))


def rank_suspects(
    facts: Sequence[FileFacts], probabilities: NDArray[np.float64], labels: Sequence[str]
) -> list[Suspect]:
    """Confident learning on (num_files, num_classes) probabilities; the least believable label first.

    The likely ones are followed, up to FEWEST_SUSPECTS in all, by others that the model would file elsewhere.
    """
    target_of = {label: target for target, label in enumerate(labels)}
    targets = np.array([target_of[fact.label] for fact in facts], dtype=np.int64)
    if len(np.unique(targets)) < 2:
        return []  # with one label there is nothing to confuse it with
    # pandas and scikit-learn behind it take seconds to import, and only this needs them.
    from cleanlab.filter import find_label_issues  # type: ignore[import-untyped]
    from cleanlab.rank import get_label_quality_scores  # type: ignore[import-untyped]

    qualities = get_label_quality_scores(targets, probabilities, method="self_confidence")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it flags nothing among labels with no file or one
        is_likely = find_label_issues(targets, probabilities, n_jobs=1)
    suggested = probabilities.argmax(axis=1)
    differ = np.flatnonzero(suggested != targets)
    ranked = differ[np.lexsort((qualities[differ], ~is_likely[differ]))]
    ranked = ranked[: max(FEWEST_SUSPECTS, int(is_likely[differ].sum()))]
    return [
        Suspect(
            path=facts[row].path,
            split=facts[row].split,
            label=facts[row].label,
            suggested=labels[suggested[row]],
            quality=float(qualities[row]),
            probability=float(probabilities[row, suggested[row]]),
            is_likely=bool(is_likely[row]),
        )
        for row in ranked.tolist()
    ]


def predict_files(bundle: Bundle, data: Path, paths: Sequence[str]) -> NDArray[np.float64]:
    """Probabilities (num_files, num_classes) by the bundle's own graph and preprocessing."""
    from training.graph import graph_classifier  # torch takes seconds to import

    preprocess = bundle.manifest.preprocess
    classify = graph_classifier(bundle.directory, bundle.manifest.precisions["fp32"])
    log_probabilities: list[NDArray[np.float64]] = [np.empty((0, len(bundle.manifest.labels)))]
    batches = [paths[start : start + BATCH_SIZE] for start in range(0, len(paths), BATCH_SIZE)]
    with ThreadPoolExecutor(available_cores()) as pool:
        for batch in progress(batches, total=len(batches), what="predict"):
            pixels = np.stack(list(pool.map(lambda path: read_pixels(data / path, preprocess), batch)))
            log_probabilities.append(log_softmax(classify(pixels)))
    return np.asarray(np.exp(np.concatenate(log_probabilities)))


@contextmanager
def open_artifact(artifact: Path) -> Iterator[Bundle]:
    """The verified bundle of a model.tar.gz (unpacked into a temporary folder) or of its folder."""
    if artifact.is_dir():
        yield read_bundle(artifact)
        return
    with tempfile.TemporaryDirectory(prefix="kennel-doctor-") as folder:
        unpack_artifact(artifact, Path(folder))
        yield read_bundle(Path(folder))
