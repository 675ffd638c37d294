"""Laws of parts: units and slots add up to their writers, estimates are slopes of exact removal, removal is exact."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch

from circuits.attribution import attribute
from circuits.graph import Kind, parse_component
from circuits.metrics import build_readout
from circuits.parts import PartTable, Removal, rank_parts
from circuits.patching import measure_patches
from circuits.problem import Inputs, Problem, pose_problem
from circuits.removal import keep_position, lose_part, remove_parts, run_removals
from circuits.units import attribute_parts
from probes.attachments import Attachment, stack_attachments
from probes.errors import UserError
from probes.forward import Pass
from probes.models import Hook, load_model
from probes.progress import quiet
from tests.checkpoints import SHAPES, load_shape, make_bank, make_explicit, write_checkpoint

CLEAN = torch.tensor([[0, 20, 31, 44, 52]])
OTHER = torch.tensor([[0, 20, 33, 41, 52]])
READERS = ("logits", "m2", "a2.h1.q", "a2.kv0.k", "a2.kv0.v")
CASES = [(shape, "counterfactual") for shape in SHAPES] + [
    (shape, ablation) for shape in ("llama", "gemma2") for ablation in ("mean", "zero")
]


def pose(shape: str, ablation: str = "counterfactual", rows: int = 1) -> Problem:
    """Problem with memories whose contents differ on the counterfactual side; each row has memories of its own."""
    model = load_shape(shape)
    sides = []
    for row in range(rows):
        explicit = make_explicit(model, seed=1 + row) if model.attention is not None else None
        changed = explicit and replace(explicit, keys=explicit.keys.flip(2), values=explicit.values * 0.5)
        bank, other = make_bank(model, seed=2 + row), make_bank(model, seed=12 + row)
        sides.append((Attachment(explicit, bank), Attachment(changed, other)))
    clean, ablated = (stack_attachments(side) for side in zip(*sides, strict=True))
    steps = torch.arange(rows)[:, None]
    readout = build_readout([CLEAN.shape[1]] * rows, [[5]] * rows, [[9]] * rows)
    inputs = Inputs(CLEAN + steps, OTHER + steps, clean, ablated, readout)
    return pose_problem(model, inputs, ablation, differentiable=True, parts=True)


def add_up(table: PartTable, reader: str) -> dict[str, np.ndarray]:
    """Sum over the parts of each writer."""
    totals: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(()))
    for scores in table.scores:
        if scores.reader == reader:
            totals[scores.whole.name] = totals[scores.whole.name] + scores.values.sum(axis=1)
    return totals


@pytest.mark.parametrize(("shape", "ablation"), CASES)
def test_parts_add_up_to_their_writers(shape: str, ablation: str) -> None:
    """As nodes and into every kind of reader that sees them; and the edges that come along are EAP's own."""
    problem = pose(shape, ablation)
    wiring = problem.wiring
    edges, table = attribute_parts(problem, quiet, READERS)
    scale = float(edges.abs().max())
    assert torch.allclose(edges, attribute(problem, quiet), atol=1e-5 * scale)
    made = [w for w in wiring.writers if w.kind in (Kind.BANK, Kind.EXPLICIT) or w.name in ("m0", "m1", "m2")]
    for reader in ("", *READERS):
        totals = add_up(table, reader)
        assert set(totals) == {w.name for w in made if not reader or wiring.sees(w.name, reader)}
        for name, total in totals.items():
            into = edges[:, wiring.find_writer(name)]
            whole = into[:, wiring.find_reader(reader)] if reader else into.sum(dim=1)
            assert np.abs(total - whole.numpy()).max() <= 1e-4 * scale, (name, reader)


@pytest.mark.parametrize("shape", ["pythia", "llama", "gemma2"])
def test_removing_all_parts_is_patching_the_writer(shape: str) -> None:
    """Exactly, for all readers and for one of every kind."""
    problem = pose(shape)
    wiring = problem.wiring
    for name, count in (("m1", 48), ("f1.l0", 3), ("x0.h1.b0", 3)):
        writer = wiring.find_writer(name)
        whole = wiring.writers[writer]
        losses = [lose_part(problem, replace(whole, part=part), "ablated") for part in range(count)]
        loss = torch.stack(losses).sum(dim=0)
        for reader in ("", *READERS, "f2.l1", "x2.h3.b1.q"):
            place = wiring.find_reader(reader) if reader else slice(None)
            position = 4 if reader == "logits" else 3
            (wanted,) = measure_patches(problem, [(position, place, writer)], quiet, "writer")
            lost = (whole, keep_position(problem, loss, position))
            reads = wiring.readers[place] if reader else None
            (got,) = run_removals(problem, [lost], reads, quiet, "parts")
            assert float(got) == pytest.approx(float(wanted), abs=2e-5), (name, reader)


@pytest.mark.parametrize("shape", ["llama", "gemma2"])
@pytest.mark.parametrize("removal", ["ablated", "contribution", "renormalised"])
def test_estimates_are_slopes_of_exact_removal(shape: str, removal: Removal) -> None:
    """A finite difference of the exactly measured metric agrees with the strongest parts of every kind."""
    problem = pose(shape)
    _, table = attribute_parts(problem, quiet, ("m2",), (removal,))
    step = 1e-2
    for reader in ("", "m2"):
        for whole in ("m1", "f1.l0", "x0.h1.b0"):
            way = removal if whole.startswith("x") else "ablated"
            (part,) = rank_parts(table.find(whole, reader, way), 1)
            at = [(part.component, part.position)]
            high, low = (
                float(remove_parts(problem, at, quiet, reader, removal, strength)) for strength in (step, -step)
            )
            assert (high - low) / (2 * step) == pytest.approx(part.score, rel=0.02, abs=2e-3), (whole, reader)


def test_a_unit_is_removed_as_a_hook_on_activations_would() -> None:
    """In a model without a norm after the MLP, removal equals overwriting that one activation."""
    problem = pose("llama")
    ablated = problem.ablated_activity
    assert ablated is not None

    class Overwriting(Pass):
        def list_hooks(self) -> list[Hook]:
            return [*super().list_hooks(), ("blocks.1.mlp.out.hook_in", self.overwrite)]

        def overwrite(self, units: torch.Tensor, hook: object) -> torch.Tensor:
            units = units.clone()
            units[:, 3, 17] = ablated.units[1][:, 3, 17]
            return units

    logits = Overwriting(problem.model, problem.inputs.attachment).run(problem.inputs.clean)
    drop = problem.metric_clean - float(problem.metric(logits))
    (got,) = remove_parts(problem, [(parse_component("m1.u17", 3), 3)], quiet)
    assert float(got) == pytest.approx(drop, abs=1e-5)


@pytest.mark.parametrize("removal", ["contribution", "renormalised"])
def test_a_slot_is_removed_as_another_memory_would(removal: Removal) -> None:
    """At all positions: a value of 0 takes the contribution away, an absent slot leaves the softmax."""
    problem = replace(pose("pythia"), summed=True)
    explicit = problem.inputs.attachment.explicit
    assert explicit is not None
    values, absent = explicit.values.clone(), explicit.absent.clone()
    values[:, 0, 1, 2, 0], absent[:, 0, 1, 2, 0] = 0.0, True
    other = replace(explicit, values=values) if removal == "contribution" else replace(explicit, absent=absent)
    logits = Pass(problem.model, replace(problem.inputs.attachment, explicit=other)).run(problem.inputs.clean)
    drop = problem.metric_clean - float(problem.metric(logits))
    (got,) = remove_parts(problem, [(parse_component("x0.h2.b1.s0", 3), 0)], quiet, removal=removal)
    assert abs(drop) > 1e-3
    assert float(got) == pytest.approx(drop, abs=1e-5)


def test_positions_and_pairs_are_summed() -> None:
    """Summed positions are the sum of kept ones; exact removals of a batch are means over its pairs."""
    kept = pose("qwen3")
    first, second = attribute_parts(kept, quiet)[1], attribute_parts(replace(kept, summed=True), quiet)[1]
    for one, two in zip(first.scores, second.scores, strict=True):
        assert (one.whole, one.reader) == (two.whole, two.reader)
        assert np.allclose(one.values.sum(axis=0), two.values[0], atol=1e-4)
    pairs = pose("qwen3", rows=2)
    part = attribute_parts(pairs, quiet)[1].rank(1)[0]
    step = 1e-2
    high, low = (float(remove_parts(pairs, [(part.component, 0)], quiet, strength=s)) for s in (step, -step))
    assert (high - low) / (2 * step) == pytest.approx(part.score, rel=0.02, abs=2e-3)


@pytest.mark.parametrize("shape", ["llama", "gemma2"])
def test_half_precision_adds_up_too(shape: str) -> None:
    """In bfloat16 parts still add up to their writers, to that dtype's rounding, and are removed exactly."""
    model = load_model(str(write_checkpoint(shape)), dtype="bfloat16", device="cpu")
    readout = build_readout([CLEAN.shape[1]], [[5]], [[9]])
    inputs = Inputs(CLEAN, OTHER, Attachment(), Attachment(), readout)
    problem = pose_problem(model, inputs, differentiable=True, parts=True)
    edges, table = attribute_parts(problem, quiet, ("logits", "a2.h1.q"))
    for reader in ("", "logits", "a2.h1.q"):
        into = edges[:, problem.wiring.find_writer("m1")].float()
        whole = into[:, problem.wiring.find_reader(reader)] if reader else into.sum(dim=1)
        total = table.find("m1", reader).values.sum(axis=1)
        assert np.abs(total - whole.numpy()).max() <= 0.05 * float(edges.abs().max())
        part = table.rank(1, reader)[0]
        assert torch.isfinite(remove_parts(problem, [(part.component, part.position)], quiet, reader)).all()


def test_parts_are_ranked_and_named() -> None:
    """The strongest come first under names that are read back; what is no part is refused."""
    problem = pose("llama")
    _, table = attribute_parts(problem, quiet, ("logits",))
    ranked = table.rank(40)
    assert [abs(part.score) for part in ranked] == sorted((abs(part.score) for part in ranked), reverse=True)
    assert {part.component.kind for part in ranked} == {Kind.MLP, Kind.BANK, Kind.EXPLICIT}
    for part in ranked:
        assert parse_component(part.component.name, 3) == part.component
        found = table.find(part.component.whole.name)
        assert found.values[part.position, part.component.part] == pytest.approx(part.score)
    assert {part.position for part in table.rank(5, "logits")} == {4}
    for name, message in (("m1.u48", "has 48 units"), ("m7.u1", "not a writer"), ("m1", "has 48 units")):
        with pytest.raises(UserError, match=message):
            remove_parts(problem, [(parse_component(name, 3), 0)], quiet)
    with pytest.raises(UserError, match="a reader in a later layer"):
        remove_parts(problem, [(parse_component("m1.u1", 3), 0)], quiet, reader="m1")
    with pytest.raises(UserError, match="scored for MLPs and memories only"):
        table.find("a1.h1")
