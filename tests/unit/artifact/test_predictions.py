"""Logits to log-probabilities."""

from __future__ import annotations

import numpy as np
import torch

from artifact.predictions import log_softmax


def test_log_softmax_of_huge_logits_stays_finite() -> None:
    log_probabilities = log_softmax(np.array([[1e30, 0.0, -1e30]]))

    assert np.isfinite(log_probabilities).all()
    assert log_probabilities[0, 0] == 0.0


def test_log_softmax_is_torchs() -> None:
    logits = np.random.default_rng(0).normal(scale=20, size=(50, 7)).astype(np.float32)

    expected = torch.log_softmax(torch.from_numpy(logits).double(), dim=1).numpy()

    assert np.allclose(log_softmax(logits), expected, rtol=0, atol=1e-12)
