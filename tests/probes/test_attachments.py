"""Memories attached together, removed, repeated and mixed: what each operation does to every number, by hand."""

from __future__ import annotations

import pytest
import torch

from probes.attachments import (
    NOTHING,
    Attachment,
    BankBlocks,
    interpolate,
    remove_memories,
    repeat_rows,
    stack_attachments,
)
from probes.errors import UserError
from tests.checkpoints import load_shape, make_bank, make_explicit


def attach(seed: int) -> Attachment:
    """Two explicit memories, one slot of the second absent, and blocks of two levels."""
    model = load_shape("llama")
    return Attachment(make_explicit(model, seed=seed), make_bank(model, seed=seed))


def read_written(bank: BankBlocks) -> list[bool]:
    """Which levels still write something; what they read with is never taken from them."""
    for name in ("gate", "up"):
        assert all(bool(part.any()) for part in bank.weights[name])
    return [bool(part.any()) for part in bank.weights["down"]]


@pytest.mark.parametrize("blocks", [None, [1], [0, 1], []])
@pytest.mark.parametrize("give_back", [True, False])
def test_removed_memories_are_absent_or_add_nothing(blocks: list[int] | None, give_back: bool) -> None:
    """Given back, their slots are absent and values stay; else values are zero and slots stay. Others are untouched."""
    whole = attach(1)
    left = remove_memories(whole, give_back, blocks).explicit
    assert left is not None and whole.explicit is not None
    gone = [block in ([0, 1] if blocks is None else blocks) for block in range(2)]
    for block in range(2):
        absent, values = left.absent[:, :, block], left.values[:, :, block]
        if gone[block] and give_back:
            assert bool(absent.all())
        else:
            assert torch.equal(absent, whole.explicit.absent[:, :, block])
        if gone[block] and not give_back:
            assert not bool(values.any())
        else:
            assert torch.equal(values, whole.explicit.values[:, :, block])
    assert torch.equal(left.keys, whole.explicit.keys)
    # What was attached before is another attachment.
    assert int(whole.explicit.absent.sum()) == load_shape("llama").kv_heads and bool(whole.explicit.values.all())


@pytest.mark.parametrize(("levels", "left"), [(None, [False, False]), ([0], [False, True]), ([], [True, True])])
def test_removed_levels_write_nothing(levels: list[int] | None, left: list[bool]) -> None:
    whole = attach(1)
    for attachment in (whole, Attachment(bank=whole.bank)):
        removed = remove_memories(attachment, True, levels=levels)
        assert removed.bank is not None and read_written(removed.bank) == left
    assert remove_memories(Attachment(whole.explicit), True).bank is None
    with pytest.raises(UserError, match="no memory is attached"):
        remove_memories(NOTHING, True)


def test_a_batch_has_each_prompts_memories_in_its_row() -> None:
    """Of both formats; one format alone stays alone, and prompts with different ones are refused."""
    rows = [attach(1), attach(2), attach(3)]
    both, explicit = stack_attachments(rows), stack_attachments([Attachment(row.explicit) for row in rows])
    bank = stack_attachments([Attachment(bank=row.bank) for row in rows])
    assert explicit.bank is None and bank.explicit is None
    for stacked in (both, explicit):
        assert stacked.explicit is not None
        for index, row in enumerate(rows):
            assert row.explicit is not None
            for name in ("keys", "values", "absent"):
                assert torch.equal(getattr(stacked.explicit, name)[index], getattr(row.explicit, name)[0])
    for stacked in (both, bank):
        assert stacked.bank is not None
        for index, row in enumerate(rows):
            assert row.bank is not None
            for level in range(2):
                for layer in row.bank.layers:
                    got, wanted = (one.pick("down", level, layer) for one in (stacked.bank, row.bank))
                    assert torch.equal(got[index], wanted[0])
    assert stack_attachments([NOTHING, NOTHING]) == NOTHING
    for other in (NOTHING, Attachment(rows[0].explicit), Attachment(bank=rows[0].bank)):
        with pytest.raises(UserError, match="different memories attached"):
            stack_attachments([rows[0], other])


def test_rows_are_repeated_as_a_whole_and_one_for_all_stays_one() -> None:
    batch = repeat_rows(stack_attachments([attach(1), attach(2)]), 3)
    assert batch.explicit is not None and batch.bank is not None
    for tensor in (batch.explicit.keys, batch.explicit.values, batch.bank.weights["up"][1]):
        assert tensor.shape[0] == 6 and torch.equal(tensor[:2], tensor[2:4]) and torch.equal(tensor[:2], tensor[4:])
        assert not torch.equal(tensor[0], tensor[1])
    alone = repeat_rows(attach(1), 3)
    assert alone.explicit is not None and alone.bank is not None
    assert alone.explicit.keys.shape[0] == alone.bank.weights["up"][1].shape[0] == 1


def test_the_path_between_two_attachments_is_straight() -> None:
    """A quarter of the way every number is a quarter of the way; a slot is absent where it is at both ends."""
    start, end = attach(1), attach(2)
    assert start.explicit is not None and end.explicit is not None and start.bank is not None and end.bank is not None
    end.explicit.absent[0, 1, 0, :, 0] = True
    found = interpolate(start, end, 0.25)
    assert found.explicit is not None and found.bank is not None
    for name in ("keys", "values"):
        first, last = getattr(start.explicit, name), getattr(end.explicit, name)
        torch.testing.assert_close(getattr(found.explicit, name), 0.75 * first + 0.25 * last)
    for level in range(2):
        first, last = (one.weights["down"][level] for one in (start.bank, end.bank))
        torch.testing.assert_close(found.bank.weights["down"][level], 0.75 * first + 0.25 * last)
    assert torch.equal(found.explicit.absent, start.explicit.absent)
    arrived = interpolate(start, end, 1.0)
    assert arrived.explicit is not None and torch.equal(arrived.explicit.absent, end.explicit.absent)
    with pytest.raises(UserError, match="different memories attached"):
        interpolate(start, Attachment(end.explicit), 0.5)
