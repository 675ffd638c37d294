"""Ledgers on planted models: shares as planted, tables that add up exactly, batches that change nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuits.anchors import run_anchor
from circuits.coalitions import Asked, Format, name_format, repeat_readout
from circuits.graph import Kind, wire
from circuits.ledgers import Ledgers, measure_ledgers
from circuits.methods import Options
from circuits.metrics import build_metric, build_readout
from circuits.parts import Removal
from circuits.planted.facts import GAIN
from circuits.planted.formats import PLACES, plant_ledger
from circuits.planted.planting import PLANTERS, load_planted
from circuits.problem import Inputs, pose_problem, record_run
from circuits.scoring import score
from circuits.shapley import measure_interactions
from circuits.tracing import plan_model
from probes.attachments import NOTHING, remove_memories
from probes.errors import UserError
from probes.progress import quiet
from tests.checkpoints import load_shape
from tests.circuits.test_kinds import attach
from tests.circuits.test_laws import CLEAN

WAYS: tuple[Removal, ...] = ("renormalised", "contribution")


def read_shares(found: Ledgers) -> dict[str, float]:
    """Shares by name, the anchor's first."""
    names = {name_format(form): float(share[0]) for form, share in zip(found.formats, found.shares, strict=True)}
    return {"anchor": float(found.values[0, 0])} | names


@pytest.mark.parametrize("removal", WAYS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_format_gets_its_planted_share(seed: int, removal: Removal) -> None:
    """Anchor, memory, level and text within 2 % of the margin; the other memory and level get nothing."""
    planted = plant_ledger(seed)
    found = measure_ledgers(planted.model, planted.asked, removal, "logit-diff")
    shares, margin = read_shares(found), sum(planted.shares.values())
    assert list(found.formats) == [Format(k, i) for k in ("explicit", "bank") for i in (0, 1)] + [Format("text", 0)]
    for name, share in shares.items():
        assert share == pytest.approx(planted.shares.get(name, 0.0), abs=0.02 * margin), name
    assert sum(shares.values()) == pytest.approx(float(found.values[-1, 0]), abs=1e-9)
    assert float(found.values[-1, 0]) == pytest.approx(margin, rel=0.02)
    assert found.known.all()


@pytest.mark.parametrize("removal", WAYS)
def test_planted_parts_carry_their_formats_share(removal: Removal) -> None:
    """The slot, the unit and the word of the text that were planted carry nearly all of it; residuals are small."""
    planted = plant_ledger(0)
    found = measure_ledgers(planted.model, planted.asked, removal, "logit-diff")
    wanted = {"memory 1": "x1.h2.b0.s0", "level 1": "f0.l0.u1", "text": "a2.h1.p6"}
    for form, share, division in zip(found.formats, found.shares, found.divisions, strict=True):
        assert division.values[0].sum() == pytest.approx(float(share[0]), rel=0.02, abs=1e-3)
        if (part := wanted.get(name_format(form))) is None:
            continue
        values = dict(zip(division.components, division.values[0], strict=True))
        assert max(values, key=lambda name: values[name]) == part
        if removal == "contribution":
            assert values[part] == pytest.approx(planted.shares[name_format(form)], rel=0.05)


def test_the_anchors_direct_parts_are_its_margin() -> None:
    """Writes into the logits add up to a difference of logits exactly; the planted unit acts through a head."""
    planted = plant_ledger(0)
    anchor = measure_ledgers(planted.model, planted.asked, "renormalised", "logit-diff").anchor
    assert anchor.direct[0].sum() == pytest.approx(float(anchor.value[0]), abs=1e-4)
    direct, effect = (dict(zip(anchor.components, row[0], strict=True)) for row in (anchor.direct, anchor.effect))
    assert max(effect, key=lambda name: effect[name] if ".u" in name else 0.0) == "m0.u0"
    assert effect["m0.u0"] == pytest.approx(planted.shares["anchor"], rel=0.05)
    assert abs(direct["m0.u0"]) < 0.1 * planted.shares["anchor"]


def test_formats_that_each_suffice_share_alike_and_are_redundant() -> None:
    """Memory and level both reach the threshold: half each, and an interaction below 0."""
    planted = plant_ledger(0, (0.0, 1.0, 1.0, 0.0), saturate=True)
    found = measure_ledgers(planted.model, planted.asked, "renormalised", "logit-diff")
    shares = read_shares(found)
    assert shares["memory 1"] == pytest.approx(shares["level 1"], rel=0.05)
    assert shares["memory 1"] == pytest.approx(2.0, rel=0.05)
    interactions = measure_interactions(found.values)[..., 0]
    places = [found.formats.index(form) for form in (Format("explicit", 0), Format("bank", 0))]
    assert interactions[places[0], places[1]] == pytest.approx(-4.0, rel=0.1)


def test_combinations_are_what_removing_the_memories_gives() -> None:
    """Combination by combination the metric is that of a plain pass with the rest removed by `remove_memories`."""
    planted = plant_ledger(1)
    asked = replace(planted.asked, with_text=None, text_readout=None, texts=None)
    for removal in WAYS:
        found = measure_ledgers(planted.model, asked, removal, "log-prob")
        for number in range(16):
            off = [index for index in range(4) if not number >> index & 1]
            blocks, levels = [index for index in off if index < 2], [index - 2 for index in off if index > 1]
            attachment = remove_memories(asked.attachment, removal == "renormalised", blocks, levels)
            _, logits = record_run(planted.model, asked.plain, attachment)
            value = float(build_metric("log-prob", asked.readout, logits)(logits))
            assert found.values[number, 0] == pytest.approx(value, abs=1e-5)


def test_padding_and_company_change_no_share() -> None:
    """A prompt alone and in a batch with a longer one, filled up on the right, has the same ledger."""
    planted = plant_ledger(2)
    alone = measure_ledgers(planted.model, planted.asked, "renormalised", "logit-diff")

    def pad(tokens: torch.Tensor | None) -> torch.Tensor:
        assert tokens is not None
        short, long = torch.nn.functional.pad(tokens, (0, 2)), torch.nn.functional.pad(tokens, (0, 2), value=3)
        return torch.cat([short, long])

    asked = planted.asked
    assert asked.texts is not None and asked.text_readout is not None
    batch = replace(
        asked,
        plain=pad(asked.plain),
        with_text=pad(asked.with_text),
        readout=repeat_readout(asked.readout, 2),
        text_readout=repeat_readout(asked.text_readout, 2),
        texts=asked.texts.repeat(2, 1),
    )
    found = measure_ledgers(planted.model, batch, "renormalised", "logit-diff")
    assert found.values[:, 0] == pytest.approx(alone.values[:, 0], abs=1e-5)
    assert found.shares[:, 1] == pytest.approx(alone.shares[:, 0], abs=1e-5)
    for one, both in zip(alone.divisions, found.divisions, strict=True):
        values = dict(zip(both.components, both.values[0], strict=True))
        assert [values[name] for name in one.components] == pytest.approx(one.values[0], abs=1e-4)


@pytest.mark.parametrize(("family", "place"), [("bank", "level 1"), ("explicit", "memory 1")])
def test_facts_planted_in_one_place_belong_to_it(family: str, place: str) -> None:
    """The circuits of `validate`: the block, or the memory, gets its planted logits, and other memories nothing."""
    planted = PLANTERS[family](0)
    model = load_planted(planted)
    tokens = torch.tensor([model.encode(planted.clean)])
    answer, foil = [model.encode_plain(planted.answer)], [model.encode_plain(planted.foil)]
    asked = Asked(tokens, build_readout([tokens.shape[1]], answer, foil), planted.attachment)
    shares = read_shares(measure_ledgers(model, asked, "contribution", "logit-diff"))
    # The anchor's share is what the random background leaks into the two logits.
    del shares["anchor"]
    for name, share in shares.items():
        assert share == pytest.approx(GAIN if name == place else 0.0, abs=0.02 * GAIN), name


def test_nothing_attached_is_all_anchor_and_kl_is_refused() -> None:
    """Without formats the anchor is the margin; KL has no margin to divide."""
    planted = plant_ledger(0)
    asked = replace(planted.asked, attachment=NOTHING, with_text=None, text_readout=None, texts=None)
    found = measure_ledgers(planted.model, asked, "renormalised", "logit-diff")
    assert found.shares.shape == (0, 1)
    assert np.array_equal(found.values, found.anchor.value[None])
    with pytest.raises(UserError, match="KL is none"):
        measure_ledgers(planted.model, asked, "renormalised", "kl")


def test_places_are_named_in_the_order_of_a_ledger() -> None:
    """The planted places are formats of the planted prompts."""
    formats = [name_format(form) for form in plant_ledger(0).asked.list_formats()]
    assert set(PLACES[1:]) <= set(formats)


@pytest.mark.parametrize("name", ["FFN", "LoRA VO", "LoRA FFN", "key-value"])
def test_every_kind_of_block_has_an_exact_share(name: str) -> None:
    """Each combination is the plain pass with the rest removed; only LoRA blocks have no parts, so all is residual."""
    model, attachment = load_shape("llama"), attach("llama", name)
    answer, foil = [[7]], [[9]]
    asked = Asked(CLEAN, build_readout([CLEAN.shape[1]], answer, foil), attachment)
    found = measure_ledgers(model, asked, "renormalised", "logit-diff")
    blocks, levels = len(attachment.explicit or ()), len(attachment.bank or ())
    for number in range(2 ** (blocks + levels)):
        off = [index for index in range(blocks + levels) if not number >> index & 1]
        rest = remove_memories(
            attachment, True, [i for i in off if i < blocks], [i - blocks for i in off if i >= blocks]
        )
        _, logits = record_run(model, CLEAN, rest)
        value = float(build_metric("logit-diff", asked.readout, logits)(logits))
        assert found.values[number, 0] == pytest.approx(value, abs=1e-4)
    assert found.values[0, 0] + found.shares[:, 0].sum() == pytest.approx(found.values[-1, 0], abs=1e-9)
    for form, share, division in zip(found.formats, found.shares, found.divisions, strict=True):
        if form.kind == "bank" and name.startswith("LoRA"):
            assert not division.components and abs(share[0]) > 1e-6
        else:
            assert division.components and abs(division.values[0]).max() > 0


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_effects_of_the_anchor_are_those_of_zero_ablation(shape: str) -> None:
    """Attribution of the nodes, added over positions; units of an MLP add up to it where it has no bias of its own."""
    model = load_shape(shape)
    inputs = Inputs(CLEAN, CLEAN, NOTHING, NOTHING, build_readout([CLEAN.shape[1]], [[5]], [[9]]))
    nodes = score(pose_problem(model, inputs, "zero", summed=False), "eap", Options(), quiet).nodes.sum(axis=0)
    anchor = run_anchor(model, CLEAN, inputs.readout, "logit-diff")
    found: dict[str, float] = {}
    for name, effect in zip(anchor.components, anchor.effect[0], strict=True):
        found[name.partition(".u")[0]] = found.get(name.partition(".u")[0], 0.0) + float(effect)
    for writer, wanted in zip(wire(plan_model(model, NOTHING)).writers, nodes, strict=True):
        if writer.kind is not Kind.MLP or model.weights[writer.layer].down_bias is None:
            assert found[writer.name] == pytest.approx(float(wanted), rel=1e-3, abs=1e-4), writer.name


def test_the_anchor_is_read_off_the_combination_with_nothing_on() -> None:
    """The same parts with the same numbers as of a run of its own, with a memory, levels and a text to be off."""
    planted = plant_ledger(1)
    found = measure_ledgers(planted.model, planted.asked, "renormalised", "logit-diff").anchor
    alone = run_anchor(planted.model, planted.asked.plain, planted.asked.readout, "logit-diff")
    assert found.components == alone.components
    for name in ("value", "direct", "effect"):
        np.testing.assert_allclose(getattr(found, name), getattr(alone, name), atol=1e-5, err_msg=name)
