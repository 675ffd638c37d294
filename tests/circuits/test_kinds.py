"""Every kind of block attached: no effect at the start, LoRA is merged weights, and the graph's laws still hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from circuits.attribution import attribute, attribute_along_path, attribute_nodes
from circuits.effects import measure_memory_effects
from circuits.graph import Kind, list_readers, list_writers, parse_component
from circuits.masking import run_masked
from circuits.patching import measure_masks, measure_patches
from circuits.problem import Inputs, Problem, pose_problem, record_run
from circuits.relevance import attribute_relevance
from circuits.restarts import Patch
from circuits.stages import attribute_along_stages
from circuits.units import attribute_parts
from probes.attachments import Attachment, BankBlocks, stack_attachments
from probes.blocks import Design, measure_widths, start_tensors
from probes.errors import UserError
from probes.forward import Pass
from probes.reading import Reader
from probes.units import read_learned
from tests.checkpoints import load_shape, make_blocks, make_explicit, write_checkpoint
from tests.circuits.test_laws import CLEAN, OTHER, read_one, stay_quiet

KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "FFN": ("ffn", ()),
    "LoRA QK": ("lora", ("query", "key")),
    "LoRA VO": ("lora", ("value", "output")),
    "LoRA FFN": ("lora", ("gate", "up", "down")),
    "key-value": ("key-value", ()),
}
CASES = [
    (shape, name)
    for shape in ("llama", "gemma2", "pythia")
    for name in KINDS
    if not (name == "LoRA FFN" and shape == "pythia")
] + [("qwen3", "key-value"), ("mixtral", "LoRA VO")]


def attach(shape: str, name: str, seed: int = 2, explicit: bool = True) -> Attachment:
    model = load_shape(shape)
    memory = make_explicit(model) if explicit and model.attention is not None else None
    return Attachment(memory, make_blocks(model, *KINDS[name], seed=seed))


def pose(shape: str, name: str, same: bool = False, **options: Any) -> Problem:
    """Problem with blocks of one kind beside explicit memories; the counterfactual has blocks of its own."""
    attachment = attach(shape, name)
    other = replace(attachment, bank=attachment.bank if same else attach(shape, name, 7).bank)
    inputs = Inputs(CLEAN, OTHER, attachment, other, read_one(CLEAN))
    return pose_problem(load_shape(shape), inputs, **options)


@pytest.mark.parametrize("shape", ["gpt2", "pythia", "llama", "qwen3", "gemma2", "mixtral"])
@pytest.mark.parametrize("name", KINDS)
def test_start_values_change_nothing(shape: str, name: str) -> None:
    """Blocks as they start leave the logits as they are, bit for bit, whatever the layers."""
    kind, targets = KINDS[name]
    model = load_shape(shape)
    if shape in ("gpt2", "pythia"):
        targets = tuple(target for target in targets if target != "gate")
    if (shape, name) == ("mixtral", "LoRA FFN"):
        with pytest.raises(UserError, match="not one sum over units"):
            make_blocks(model, kind, targets)
        return
    design = Design(kind, measure_widths(model), (0, 2), (3, 2), branching=2, targets=targets)
    generator = torch.Generator().manual_seed(0)
    levels = [start_tensors(design, level, 1, generator) for level in (1, 2)]
    weights = {part: tuple(level[part] for level in levels) for part in levels[0]}
    blocks = BankBlocks((0, 1), design.layers, weights, kind, design.factor)
    got = Pass(model, Attachment(bank=blocks)).run(CLEAN)
    assert torch.equal(got, Pass(model).run(CLEAN))


@pytest.mark.parametrize("name", ["LoRA QK", "LoRA VO", "LoRA FFN"])
@pytest.mark.parametrize("shape", ["llama", "qwen3", "gemma2"])
def test_lora_is_merged_weights(shape: str, name: str) -> None:
    """Blocks attached by hooks equal a checkpoint with W + factor * B A in the changed projections."""
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(write_checkpoint(shape))
    attachment = attach(shape, name, explicit=False)
    bank = attachment.bank
    assert bank is not None
    places = {"query": "q", "key": "k", "value": "v", "output": "o", "gate": "gate", "up": "up", "down": "down"}
    for layer in bank.layers:
        for target in KINDS[name][1]:
            part = "mlp" if target in ("gate", "up", "down") else "self_attn"
            linear = plain.model.layers[layer].get_submodule(f"{part}.{places[target]}_proj")
            for level in range(len(bank)):
                into, out = (bank.pick(f"{target}.{end}", level, layer)[0] for end in ("in", "out"))
                linear.weight.data += bank.factor * (into.T @ out).T
    with torch.no_grad():
        wanted = plain(CLEAN).logits
    got = Pass(load_shape(shape), attachment).run(CLEAN)
    assert float((got - wanted).abs().max()) < 2e-5
    assert float((got - Pass(load_shape(shape)).run(CLEAN)).abs().max()) > 1e-2


def test_learned_key_values_are_one_softmax_of_their_own() -> None:
    """Read by hand, slot by slot; their order does not matter, and neither does the position of the query."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 3, 2, 4, generator=generator) for _ in range(3))
    got = read_learned(query, key.transpose(1, 2), value.transpose(1, 2))
    for pos in range(3):
        for head in range(2):
            scores = torch.stack([query[0, pos, head] @ key[0, slot, head] / 2 for slot in range(3)])
            wanted = sum(weight * value[0, slot, head] for slot, weight in enumerate(scores.softmax(dim=0)))
            assert torch.allclose(got[0, pos, head], wanted, atol=1e-6)  # type: ignore[arg-type]
    turned = read_learned(query, key.transpose(1, 2).flip(2), value.transpose(1, 2).flip(2))
    assert torch.allclose(got, turned, atol=1e-6)


@pytest.mark.parametrize(("shape", "name"), CASES)
def test_whole_graph_is_the_model_and_empty_circuit_the_counterfactual(shape: str, name: str) -> None:
    """Every edge kept gives the model's metric, none that of the counterfactual with blocks of its own."""
    problem = pose(shape, name)
    whole = torch.ones(1, 1, len(problem.wiring.readers), len(problem.wiring.writers))
    assert float(measure_masks(problem, whole)) == pytest.approx(problem.metric_clean, abs=1e-4)
    _, logits = record_run(load_shape(shape), OTHER, problem.inputs.counterfactual_attachment)
    wanted = float(problem.metric(logits))
    assert problem.metric_ablated == pytest.approx(wanted, abs=1e-4)
    empty = torch.zeros(1, 1, len(problem.wiring.readers), len(problem.wiring.writers))
    assert float(measure_masks(problem, empty)) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(("shape", "name"), CASES)
def test_eap_is_the_derivative_of_the_masked_run(shape: str, name: str) -> None:
    """EAP equals, edge by edge, the derivative of the metric by that edge's mask; node scores are sums of edges."""
    problem = pose(shape, name)
    wiring = problem.wiring
    mask = torch.ones(1, problem.positions, len(wiring.readers), len(wiring.writers), requires_grad=True)
    logits = run_masked(
        problem.model, problem.inputs.attachment, problem.inputs.clean, wiring.plan, mask, problem.ablated_writes
    )
    (gradient,) = torch.autograd.grad(problem.metric(logits).sum(), mask)
    brute = gradient[0].transpose(1, 2) * torch.from_numpy(wiring.visible)
    scores = attribute(problem, stay_quiet)
    largest = float(brute.abs().max())
    assert largest > 1e-3
    assert float((scores - brute).abs().max()) <= 1e-4 * largest
    assert torch.allclose(attribute_nodes(problem, stay_quiet), scores.sum(dim=2), atol=1e-4 * largest)


@pytest.mark.parametrize(("shape", "name"), [(s, n) for s, n in CASES if s in ("llama", "gemma2")])
def test_patches_taken_up_where_they_act_are_masked_runs(shape: str, name: str) -> None:
    """Patches of the strongest edges, and of some into every reader of learned key-values, equal masked runs."""
    problem = pose(shape, name)
    wiring, scores = problem.wiring, attribute(problem, stay_quiet)
    chosen = scores.abs().flatten().topk(12).indices.tolist()
    patches: list[Patch] = []
    for flat in chosen:
        position, rest = divmod(flat, scores.shape[1] * scores.shape[2])
        writer, reader = divmod(rest, scores.shape[2])
        patches.append((position, reader, writer))
    patches += [(2, r, 0) for r, reader in enumerate(wiring.readers) if reader.component.kind is Kind.LEARNED]
    masks = torch.ones(len(patches), problem.positions, len(wiring.readers), len(wiring.writers))
    for row, (position, reader, writer) in enumerate(patches):
        masks[row, position, reader, writer] = 0.0
    drops = measure_patches(problem, patches, stay_quiet, "patches")
    assert torch.allclose(drops, problem.metric_clean - measure_masks(problem, masks), atol=2e-4)


@pytest.mark.parametrize("name", KINDS)
def test_paths_stages_and_parts_are_complete(name: str) -> None:
    """EAP-IG adds up to the drop of the metric; unit scores add up to those of their MLP; relevance is finite."""
    problem = pose("llama", name, same=True, parts=True, attention=True)
    drop = problem.metric_clean - problem.metric_ablated
    stages = attribute_along_stages(problem, 60, stay_quiet)
    first = [index for index, writer in enumerate(problem.wiring.writers) if writer.layer == 2]
    assert bool(torch.isfinite(stages).all()) and len(first) > 0
    embed = float(stages[:, 0].sum())
    mask = torch.ones(1, 1, len(problem.wiring.readers), len(problem.wiring.writers))
    mask[..., 0] = 0.0
    assert embed == pytest.approx(problem.metric_clean - float(measure_masks(problem, mask)), rel=2e-2, abs=2e-2)
    scores, table = attribute_parts(problem, stay_quiet)
    for layer in range(3):
        node = float(scores[:, [w.name for w in problem.wiring.writers].index(f"m{layer}")].sum())
        assert float(table.find(f"m{layer}").values.sum()) == pytest.approx(node, abs=1e-4)
    for rule in ("frozen", "half"):
        assert bool(torch.isfinite(attribute_relevance(problem, rule, stay_quiet)).all())
    assert abs(drop) > 1e-3
    assert bool(torch.isfinite(attribute_along_path(problem, 3, stay_quiet)).all())


@pytest.mark.parametrize("name", KINDS)
def test_blocks_as_a_whole_have_an_effect(name: str) -> None:
    """Every level's exact effect is the drop of a run without it, for kinds that are writers and those that are not."""
    problem = pose("llama", name)
    effects = measure_memory_effects(problem, stay_quiet)[-2:]
    bank = problem.inputs.attachment.bank
    assert bank is not None
    for level, effect in enumerate(effects):
        without = replace(problem.inputs.attachment, bank=bank.silence([level]))
        _, logits = record_run(load_shape("llama"), CLEAN, without)
        assert effect.contribution == pytest.approx(problem.metric_clean - float(problem.metric(logits)), abs=1e-5)
        assert effect.kind is (Kind.LEARNED if name == "key-value" else Kind.BANK)
    assert max(abs(effect.contribution) for effect in effects) > 1e-3


def test_which_kinds_are_writers() -> None:
    """FFN and key-value blocks write and read; LoRA blocks are counted inside the parts that they change."""
    named = {}
    for name in KINDS:
        plan = pose("llama", name).wiring.plan
        writers = [writer.name for writer in list_writers(plan) if writer.kind in (Kind.BANK, Kind.LEARNED)]
        assert writers == [r.name for r in list_readers(plan) if r.component.kind in (Kind.BANK, Kind.LEARNED)]
        named[name] = writers
    assert named["FFN"] == ["f1.l0", "f1.l1", "f2.l0", "f2.l1"]
    assert named["key-value"] == ["k1.l0", "k1.l1", "k2.l0", "k2.l1"]
    assert not named["LoRA QK"] and not named["LoRA VO"] and not named["LoRA FFN"]
    assert all(parse_component(writer, 3).name == writer for writer in named["key-value"])


@pytest.mark.parametrize(("shape", "name"), [("llama", name) for name in KINDS] + [("gemma2", "key-value")])
def test_reading_without_a_record_gives_the_same_logits(shape: str, name: str) -> None:
    """The pass that hears only layers with memories computes what the recording pass computes."""
    attachment = attach(shape, name)
    wanted = Pass(load_shape(shape), attachment).run(CLEAN)
    assert torch.allclose(Reader(load_shape(shape), attachment).run(CLEAN), wanted, atol=1e-5)
    ends = torch.tensor([[2, 4]])
    kept = Reader(load_shape(shape), attachment, ends=ends).run(CLEAN)
    assert torch.allclose(kept, wanted[:, [2, 4]], atol=1e-5)


def test_lora_blocks_of_several_paths_are_not_traced_in_one_batch() -> None:
    """A plain pass runs a batch with a path a row; attribution, which needs one set of weights, refuses it."""
    rows = [attach("llama", "LoRA VO", seed, explicit=False) for seed in (2, 3)]
    tokens, both = torch.cat([CLEAN, OTHER]), stack_attachments(rows)
    together = Pass(load_shape("llama"), both).run(tokens)
    for row, attachment in enumerate(rows):
        assert torch.allclose(
            together[row : row + 1], Pass(load_shape("llama"), attachment).run(tokens[row : row + 1]), atol=1e-5
        )
    inputs = Inputs(tokens, tokens.flip(0), both, both, read_one(tokens))
    with pytest.raises(UserError, match="one by one"):
        pose_problem(load_shape("llama"), inputs)


def test_units_need_one_direction() -> None:
    """Where the two sides' LoRA blocks give units different directions, their scores are refused, not wrong."""
    problem = pose("llama", "LoRA FFN", parts=True)
    with pytest.raises(UserError, match="same path"):
        attribute_parts(problem, stay_quiet)
