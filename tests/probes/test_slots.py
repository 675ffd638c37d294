"""The arithmetic of slots against loops: which tokens are kept, how memory and context share one softmax."""

from __future__ import annotations

import math

import pytest
import torch

from probes.slots import (
    gather_slots,
    keep_slots,
    measure_received_attention,
    read_slots,
    rotate,
    score_slots,
    share_attention,
    shift_keys,
)


def count_received(q: torch.Tensor, k: torch.Tensor, valid: list[bool], head: int, group: int) -> list[float]:
    """Attention received by each token, for the queries of one key-value head, by loops."""
    size = q.shape[0]
    received = [0.0] * size
    for query_head in range(head * group, (head + 1) * group):
        for i in range(size):
            if not valid[i]:
                continue
            scores = [float(q[i, query_head] @ k[j, head]) * 0.5 for j in range(size)]
            total = sum(math.exp(s) for s, ok in zip(scores, valid, strict=True) if ok)
            for j in range(size):
                if valid[j]:
                    received[j] += math.exp(scores[j]) / total
    return received


def test_received_attention_is_what_loops_count() -> None:
    """Softmax scoring with sum pooling, first token invalid, two query heads a key-value head."""
    torch.manual_seed(0)
    q, k = torch.randn(1, 6, 4, 8), torch.randn(1, 6, 2, 8)
    valid = torch.tensor([[False, True, True, True, True, True]])
    got = measure_received_attention(q, k, valid, 0.5)
    for head in range(2):
        wanted = count_received(q[0], k[0], valid[0].tolist(), head, 2)
        assert got[0, head, 0] == -math.inf
        assert got[0, head, 1:].tolist() == pytest.approx(wanted[1:], rel=1e-4)


def test_exp_sum_ranks_like_its_definition() -> None:
    """The paper's approximation: the sum of exponentials over queries, up to one factor a key-value head."""
    torch.manual_seed(1)
    q, k = torch.randn(1, 5, 2, 4), torch.randn(1, 5, 2, 4)
    valid = torch.ones(1, 5, dtype=torch.bool)
    got = measure_received_attention(q, k, valid, 1.0, scoring="exp-sum")
    wanted = torch.einsum("bihd,bjhd->bhij", q, k).exp().sum(dim=2)
    ratio = got / wanted
    assert torch.allclose(ratio, ratio[..., :1].expand_as(ratio), rtol=1e-4)


def test_slots_are_the_largest_in_order() -> None:
    """Kept positions are those with most attention, in order of position, and their states are gathered."""
    received = torch.tensor([[[0.1, 0.9, -math.inf, 0.5, 0.7]]])
    positions = keep_slots(received, 3)
    assert positions.tolist() == [[[1, 3, 4]]]
    states = torch.arange(5.0).reshape(1, 5, 1, 1)
    assert gather_slots(states, positions).flatten().tolist() == [1.0, 3.0, 4.0]
    assert keep_slots(received, 9).shape[-1] == 5


def test_shared_softmax_is_one_softmax() -> None:
    """Share and weights are those of a softmax over the concatenation, and the merged read is its sum."""
    torch.manual_seed(2)
    memory, context = torch.randn(1, 3, 2, 2, 4), torch.randn(1, 3, 2, 5)
    share, weights = share_attention(memory, context.logsumexp(-1))
    whole = torch.cat([memory.flatten(-2), context], dim=-1).softmax(-1)
    assert torch.allclose(weights.flatten(-2), whole[..., :8], atol=1e-6)
    assert torch.allclose(share, whole[..., 8:].sum(-1), atol=1e-6)
    values = torch.randn(1, 2, 1, 4, 3)
    read = read_slots(weights, values)
    wanted = torch.einsum("bphms,bmsd->bphmd", weights, values[:, :, 0])
    assert torch.allclose(read, wanted, atol=1e-6)


def test_scores_use_each_blocks_own_query() -> None:
    """A block's scores change with its own query only, and the soft cap bounds them."""
    torch.manual_seed(3)
    queries, keys = torch.randn(1, 2, 4, 2, 8), torch.randn(1, 2, 2, 3, 8)
    first = score_slots(queries, keys, 1.0)
    changed = queries.clone()
    changed[:, :, :, 1] += 1.0
    second = score_slots(changed, keys, 1.0)
    assert torch.equal(first[:, :, :, 0], second[:, :, :, 0])
    assert not torch.equal(first[:, :, :, 1], second[:, :, :, 1])
    assert float(score_slots(queries * 100, keys, 1.0, soft_cap=5.0).abs().max()) <= 5.0


def test_shifted_keys_keep_relative_scores() -> None:
    """Turning keys by an offset equals having read them at the later distance (rotary is relative)."""
    torch.manual_seed(4)
    frequencies = torch.tensor([1.0, 0.1])

    def angles(positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angle = positions[None, :, None] * torch.cat([frequencies, frequencies])
        return angle.cos(), angle.sin()

    key, query = torch.randn(1, 1, 1, 6), torch.randn(1, 1, 1, 6)
    near = rotate(key, *angles(torch.tensor([3.0])))
    shifted = shift_keys(near, frequencies, -10.0)
    far = rotate(key, *angles(torch.tensor([-7.0])))
    assert torch.allclose(shifted, far, atol=1e-5)
    at = rotate(query, *angles(torch.tensor([2.0])))
    later = rotate(query, *angles(torch.tensor([12.0])))
    assert float((shifted * at).sum()) == pytest.approx(float((near * later).sum()), abs=1e-4)
