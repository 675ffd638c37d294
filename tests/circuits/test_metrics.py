"""Metrics of several rows and steps against sums written out, one answer shorter than the other."""

from __future__ import annotations

import pytest
import torch

from circuits.metrics import build_metric, build_readout, read_logits


def test_every_metric_sums_over_the_steps_that_a_row_has() -> None:
    """The second row has one token of an answer, read one position later; what fills it up counts for nothing."""
    generator = torch.Generator().manual_seed(0)
    logits, clean = (torch.randn(2, 4, 7, generator=generator) for _ in range(2))
    readout = build_readout([2, 3], [[5, 6], [1]], [[3, 2], [4]])
    steps = [[(0, 1, 5, 3), (0, 2, 6, 2)], [(1, 2, 1, 4)]]
    odds, reference = logits.log_softmax(-1), clean.log_softmax(-1)
    wanted = {
        "logit-diff": [sum(logits[r, p, a] - logits[r, p, f] for r, p, a, f in row) for row in steps],
        "log-prob": [sum(odds[r, p, a] for r, p, a, _ in row) for row in steps],
        "prob": [torch.stack([odds[r, p, a] for r, p, a, _ in row]).sum().exp() for row in steps],
        "kl": [
            -sum((reference[r, p].exp() * (reference[r, p] - odds[r, p])).sum() for r, p, _, _ in row) for row in steps
        ],
    }
    for name, values in wanted.items():
        found = build_metric(name, readout, read_logits(clean, readout))(logits)
        assert found.tolist() == pytest.approx([float(value) for value in values], rel=1e-5), name
