"""Edge scores equal those of an independent slow implementation, and TransformerLens's own where it applies."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from circuits.attribution import attribute, attribute_along_path
from circuits.metrics import build_readout
from circuits.problem import Inputs, Problem, pose_problem
from probes.attachments import Attachment
from probes.models import load_model, quieten_libraries
from probes.progress import quiet
from tests.checkpoints import load_shape, make_bank, make_explicit, write_checkpoint
from tests.slow_attribution import READERS, Memories, Network, attribute_slowly, run

CLEAN = torch.tensor([[0, 20, 31, 44, 52]])
OTHER = torch.tensor([[0, 20, 33, 41, 52]])
ANSWER, FOIL = 5, 9
# What float32 loses in a sum whose terms are as large as the largest score: below it an edge has no digits to compare.
ROUNDING = 1e-6
SHAPES = ("gpt2", "pythia", "llama", "gemma2")
# Shapes, and whether explicit memories and bank blocks are attached (GPT-2 has no rotary keys, so no explicit memory).
CASES = [(shape, False) for shape in SHAPES] + [(shape, True) for shape in ("pythia", "llama", "gemma2")]


def read_network(shape: str) -> tuple[Network, Tensor]:
    """The equations of a checkpoint, with Hugging Face's own logits on the clean prompt."""
    from transformers import AutoModelForCausalLM

    quieten_libraries()
    model = AutoModelForCausalLM.from_pretrained(write_checkpoint(shape), dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return READERS[model.config.model_type](model, CLEAN.shape[1]), model(CLEAN).logits[0]


def unpack(attachment: Attachment) -> Memories:
    """The attached tensors in the slow implementation's own layout."""
    found = Memories()
    if (explicit := attachment.explicit) is not None:
        for index, layer in enumerate(explicit.layers):
            found.keys[layer] = list(explicit.keys[0, index])
            found.values[layer] = list(explicit.values[0, index])
            found.absent[layer] = list(explicit.absent[0, index])
    if (bank := attachment.bank) is not None:
        for index, layer in enumerate(bank.layers):
            levels = zip(*bank.weights.values(), strict=True)
            found.units[layer] = [(gate[0, index], up[0, index], down[0, index]) for gate, up, down in levels]
    return found


def attach(shape: str, memories: bool) -> tuple[Attachment, Attachment]:
    """Memories of the clean and of the ablated run; their contents differ."""
    if not memories:
        return Attachment(), Attachment()
    model = load_shape(shape)
    explicit, bank = make_explicit(model), make_bank(model)
    changed = replace(explicit, keys=explicit.keys.flip(2), values=explicit.values * 0.5, absent=explicit.absent)
    return Attachment(explicit, bank), Attachment(changed, make_bank(model, seed=3))


def pose(
    shape: str, attachments: tuple[Attachment, Attachment], clean: Tensor = CLEAN, other: Tensor = OTHER
) -> Problem:
    """Problem of one pair under the logit difference."""
    readout = build_readout([clean.shape[1]], [[ANSWER]], [[FOIL]])
    return pose_problem(load_shape(shape), Inputs(clean, other, *attachments, readout))


def read_difference(logits: Tensor) -> Tensor:
    """Answer minus foil at the last position of [pos, d_vocab]."""
    return logits[-1, ANSWER] - logits[-1, FOIL]


def arrange(problem: Problem, scores: dict[tuple[int, str, str], float]) -> Tensor:
    """Scores by name as [pos, writer, reader]; every edge of the graph must be there, and no other."""
    wiring = problem.wiring
    writers = {writer.name: i for i, writer in enumerate(wiring.writers)}
    readers = {reader.name: i for i, reader in enumerate(wiring.readers)}
    found = torch.full((problem.positions, len(writers), len(readers)), torch.nan)
    for (position, writer, reader), score in scores.items():
        found[position, writers[writer], readers[reader]] = score
    assert torch.equal(found[0].isfinite(), torch.from_numpy(wiring.visible))
    return found.nan_to_num()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_slow_implementation_is_the_model(shape: str) -> None:
    """Its logits are Hugging Face's own, so that what it differentiates is the model."""
    network, logits = read_network(shape)
    with torch.no_grad():
        _, own = run(network, Memories(), network.embed(CLEAN[0]))
    assert float((own - logits).abs().max()) <= 1e-5 * float(logits.abs().max())


@pytest.mark.parametrize("steps", [None, 3], ids=["eap", "eap-ig"])
@pytest.mark.parametrize(("shape", "memories"), CASES)
def test_scores_equal_the_slow_implementation(shape: str, memories: bool, steps: int | None) -> None:
    """Every edge at every position, to 1e-4 of its own size."""
    attachments = attach(shape, memories)
    problem = pose(shape, attachments)
    network, _ = read_network(shape)
    unpacked = (unpack(attachments[0]), unpack(attachments[1]))
    slow = arrange(problem, attribute_slowly(network, (CLEAN[0], OTHER[0]), unpacked, read_difference, steps))
    fast = attribute(problem, quiet) if steps is None else attribute_along_path(problem, steps, quiet)
    largest = float(slow.abs().max())
    assert largest > 0.1
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=ROUNDING * largest)


def name_ends(writer: object, reader: object) -> tuple[int, str, str]:
    """TransformerLens's pair of nodes in our names."""
    heads = {
        "q_input": "a{0.layer}.h{0.head}.q",
        "k_input": "a{0.layer}.kv{0.head}.k",
        "v_input": "a{0.layer}.kv{0.head}.v",
    }
    names = heads | {"embed": "embed", "attn_head_out": "a{0.layer}.h{0.head}", "mlp_out": "m{0.layer}"}
    names |= {"mlp_in": "m{0.layer}", "logits": "logits"}
    kinds = writer.kind, reader.kind  # type: ignore[attr-defined]
    return reader.position, names[kinds[0]].format(writer), names[kinds[1]].format(reader)  # type: ignore[attr-defined]


@pytest.mark.parametrize("shape", ["gpt2", "pythia"])
def test_scores_equal_those_of_transformer_lens(shape: str) -> None:
    """Its edges, where it has them: it refuses grouped queries and post-norms.

    It takes the gradient at the corrupt run, so our clean prompt is its corrupt one.
    """
    from transformer_lens.tools.analysis import EdgeAttributionConfig, attribution_patch

    problem = pose(shape, (Attachment(), Attachment()), clean=OTHER, other=CLEAN)
    # A copy whose weights are not frozen: its backward pass starts at the embedding's.
    bridge = load_model(str(write_checkpoint(shape)), device="cpu").bridge.requires_grad_(True)
    found = attribution_patch(
        bridge,
        CLEAN,
        OTHER,
        lambda logits: read_difference(logits[0]),
        EdgeAttributionConfig(granularity="edge"),
    )
    theirs = {name_ends(writer, reader): -score for (writer, reader), score in found.edge_scores.items()}
    ours = attribute(problem, quiet)
    wanted = arrange(problem, theirs)
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=ROUNDING * float(wanted.abs().max()))
