"""Training the demo model: a run that was stopped ends where an unbroken one ends; memories do what they say."""

from __future__ import annotations

import copy
import random
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from probes.errors import UserError
from workbench.demo.batches import Batches, Encoder, count_decays
from workbench.demo.build import open_start
from workbench.demo.config import DEFAULT, Config, load_config, parse_config
from workbench.demo.corpus import draw_readings, write_corpus, write_documents
from workbench.demo.network import FETCHED, GENERIC, NONE, share_memory, write_memory
from workbench.demo.tokenizer import train_tokenizer
from workbench.demo.training import Learner, choose_rates, is_exercised, train_model
from workbench.demo.world import build_world
from workbench.library import find_shipped

CHOSEN = {
    "world": {
        "people": 30, "companies": 10, "towns": 10, "countries": 5, "elements": 6,
        "never_seen_people": 3, "never_seen_companies": 2, "never_seen_towns": 2,
    },
    "words": {"first_names": 12, "last_names": 12, "stems": 12, "cities": 8, "firms": 8, "founders": 8, "rivers": 8,
              "regions": 8, "vocabulary": 3072},
    "clusters": {"branching": 3, "depth": 2},
    "model": {"d_model": 16, "layers": 3, "heads": 2, "kv_heads": 1, "d_head": 8, "d_ffn": 24, "positions": 128},
    "bank": {"units": [3, 2]},
    "memory": {"layers": [1], "slots": 4, "rows": 4},
    "training": {"anchor_epochs": 0.1, "bank_epochs": 0.1, "rows": 4, "reading_rows": 2, "abstract_rows": 2},
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices are so small here that more threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def batches() -> Batches:
    """Rows of a tiny world, with clusters drawn at random instead of found by the sentence encoder."""
    config = parse_config(CHOSEN, tomllib.loads(DEFAULT.read_text()))
    world = build_world(config)
    corpus = write_corpus(world, config)
    texts = [p.text for p in (*corpus.passages, *corpus.asides)] + list(write_documents(world, config.seed).values())
    encoder = Encoder(train_tokenizer(texts, world, config.words.vocabulary))
    draw = np.random.default_rng(0)
    leaves = draw.integers(0, 9, size=len(corpus.passages))
    paths = np.stack([leaves // 3, leaves], axis=1)
    kinds = {kind: list(paths[:5]) for kind in ("person", "company", "town", "country", "element")}
    built = Batches(config, world, corpus, paths, kinds, encoder, nearby=paths[::-1].copy())
    built.anchor_steps, built.bank_steps, built.block_steps, built.steps = 8, 16, 20, 24
    built.decays = [(16, 18), (18, 20)]
    return built


def start(config: Config, batches: Batches) -> Learner:
    return Learner(config, len(batches.encoder.tokenizer), (0, 1, 2))


class Stop(Exception):
    """Raised by the progress report, as a kill would come."""


@pytest.mark.parametrize("killed", [13, 22])
def test_a_stopped_run_ends_in_the_same_weights(batches: Batches, tmp_path: Path, killed: int) -> None:
    config = batches.config
    whole = start(config, batches)
    train_model(config, whole, batches, tmp_path / "whole", resume=False)

    def stop(_stage: str, done: int, _total: int) -> None:
        if done == killed:
            raise Stop

    eager = parse_config(
        {**CHOSEN, "training": {**CHOSEN["training"], "checkpoint_minutes": 0.0}}, tomllib.loads(DEFAULT.read_text())
    )
    broken = start(eager, batches)
    with pytest.raises(Stop):
        train_model(eager, broken, batches, tmp_path / "part", resume=True, report=stop)
    again = start(eager, batches)
    train_model(eager, again, batches, tmp_path / "part", resume=True)
    for (name, left), right in zip(whole.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(left, right), name
    with pytest.raises(UserError, match="another configuration"):
        train_model(config, start(config, batches), batches, tmp_path / "part", resume=True)


def test_weights_that_are_there_go_through_the_last_two_stages_alone(batches: Batches, tmp_path: Path) -> None:
    config, steps = batches.config, []
    learner = start(config, batches)
    before = [value.clone() for value in learner.parameters()]

    def note(_stage: str, done: int, _total: int) -> None:
        steps.append(done)

    train_model(config, learner, batches, tmp_path, resume=True, first=batches.bank_steps, report=note)
    assert steps == list(range(batches.bank_steps + 1, batches.steps + 1))
    assert not any(torch.equal(left, right) for left, right in zip(before, learner.parameters(), strict=True))


def test_a_start_of_another_world_or_shape_is_refused() -> None:
    default = load_config()
    assert open_start(find_shipped(), default).digest
    for other, said in (
        (replace(default, model=replace(default.model, layers=5)), "another model"),
        (replace(default, world=replace(default.world, people=10)), "another world"),
        (replace(default, bank=replace(default.bank, units=[1, 2])), "not \\[1, 2\\]"),
    ):
        with pytest.raises(UserError, match=said):
            open_start(find_shipped(), other)


def test_a_new_bank_changes_nothing(batches: Batches) -> None:
    learner = start(batches.config, batches).eval()
    rows = batches.passages_at(0)
    paths, mode = rows.paths, torch.full_like(rows.mode, FETCHED)
    plain = learner.anchor(input_ids=rows.ids).logits
    with learner.attached.attach(learner.bank.fetch(paths, mode)):
        assert torch.equal(learner.anchor(input_ids=rows.ids).logits, plain)
    with torch.no_grad():
        learner.bank.down[1].normal_()
    with learner.attached.attach(learner.bank.fetch(paths, mode)):
        assert not torch.allclose(learner.anchor(input_ids=rows.ids).logits, plain)
    with learner.attached.attach(learner.bank.fetch(paths, torch.full_like(mode, NONE))):
        assert torch.allclose(learner.anchor(input_ids=rows.ids).logits, plain, atol=1e-6)


def test_memories_are_read_in_any_order_and_absent_ones_not_at_all(batches: Batches) -> None:
    config = batches.config
    learner = start(config, batches).eval()
    batch = batches.memory_at(9)
    with torch.no_grad():
        written = write_memory(learner.anchor, batch.references, batch.valid, config.memory.layers, config.memory.slots)
        ids = batch.rows.ids

        def run(chosen: list[int]) -> torch.Tensor:
            rows = torch.tensor([chosen] * len(ids))
            shared = share_memory(learner.anchor, written, rows, config.memory.offset)
            return learner.anchor(input_ids=ids, memory=shared).logits

        assert torch.allclose(run([0, 1, 2]), run([2, 0, 1]), atol=1e-5)
        assert torch.allclose(run([-1, -1]), learner.anchor(input_ids=ids).logits, atol=1e-5)
        assert not torch.allclose(run([0]), learner.anchor(input_ids=ids).logits, atol=1e-5)
    for slots in written.values():
        assert bool(batch.valid[:, None, :].expand(-1, 1, -1).gather(2, slots.positions).all())


def test_rows_follow_from_the_step_alone(batches: Batches) -> None:
    first, second = batches.memory_at(11), batches.memory_at(11)
    assert torch.equal(first.rows.ids, second.rows.ids) and torch.equal(first.chosen, second.chosen)
    assert not torch.equal(batches.passages_at(1).ids[:, :8], batches.passages_at(2).ids[:, :8])


def test_every_aside_follows_another_passage_in_another_epoch(batches: Batches) -> None:
    epochs = [batches.place_asides(random.Random(seed)) for seed in (0, 1)]
    assert batches.asides and epochs[0] != epochs[1]
    own = sum(len(ids) for ids, _ in batches.rows)
    added = sum(len(ids) for ids, _ in batches.asides)
    for rows in epochs:
        assert sum(len(ids) for ids, _ in rows) == own + added
        assert all(ids[: len(plain)] == plain for (ids, _), (plain, _) in zip(rows, batches.rows, strict=True))


def with_bank(batches: Batches, **chosen: float) -> Batches:
    """The same rows with other shares of the bank's table."""
    other = copy.copy(batches)
    other.config = replace(batches.config, bank=replace(batches.config.bank, **chosen))
    return other


def test_common_passages_are_read_beside_the_blocks_of_others_at_last(batches: Batches) -> None:
    draw = random.Random(0)
    shared = with_bank(batches, wrong_share=0.0, common_wrong_share=1.0)
    early, own = (
        [np.array_equal(shared.draw_path(number, step, draw), path) for number, path in enumerate(batches.paths)]
        for step in (batches.bank_steps - 1, batches.bank_steps)
    )
    assert all(early)
    common = [document in batches.common for document in batches.documents]
    assert any(common) and not all(common)
    assert all(kept for kept, known in zip(own, common, strict=True) if not known)
    assert not all(kept for kept, known in zip(own, common, strict=True) if known)


def test_common_passages_are_read_beside_the_next_best_blocks_at_last(batches: Batches) -> None:
    shared = with_bank(batches, wrong_share=1.0, common_wrong_share=1.0, nearby_share=1.0)
    drawn = {step: [shared.draw_path(n, step, random.Random(n)) for n in range(len(shared.paths))] for step in (15, 16)}
    nearby = {step: list(map(np.array_equal, paths, shared.nearby)) for step, paths in drawn.items()}
    assert all(kept for kept, name in zip(nearby[16], shared.documents, strict=True) if name in shared.common)
    assert not all(kept for kept, name in zip(nearby[16], shared.documents, strict=True) if name not in shared.common)
    assert not all(kept for kept, name in zip(nearby[15], shared.documents, strict=True) if name in shared.common)


def test_the_third_stage_is_one_decay_after_another_and_the_last_one_more(batches: Batches) -> None:
    plan = batches.config.training
    rates = [choose_rates(step, batches) for step in range(16, 20)]
    assert rates[0] == rates[2] == (plan.last_rate, plan.last_bank_rate)
    assert rates[1] == rates[3] == (plan.last_rate / 2, plan.last_bank_rate / 2)
    blocks = [choose_rates(step, batches) for step in range(20, 24)]
    assert blocks == [(0.0, plan.block_rate * part) for part in (1.0, 1.0, 0.75, 0.375)]
    assert count_decays(16, [1.0, 0.5, 1.5], 4) == [(16, 20), (20, 22), (22, 28)]
    assert count_decays(16, [], 4) == []


def count_steps(folder: Path) -> dict[str, int]:
    """Steps of the optimiser by parameter, as a checkpoint has them."""
    stored = load_file(folder / "optimizer.safetensors")
    return {name.removesuffix("|step"): int(value) for name, value in stored.items() if name.endswith("|step")}


def test_every_decay_begins_with_a_fresh_optimizer(batches: Batches, tmp_path: Path) -> None:
    learner, joint = start(batches.config, batches), copy.copy(batches)
    joint.steps = joint.block_steps
    train_model(batches.config, learner, joint, tmp_path / "checkpoint", resume=False, first=15)
    assert set(count_steps(tmp_path / "checkpoint").values()) == {2}, "steps since the last decay began"


def test_the_anchor_stands_still_in_the_last_stage(batches: Batches, tmp_path: Path) -> None:
    learner = start(batches.config, batches)
    before = {name: value.clone() for name, value in learner.named_parameters()}
    # From the stage before, so that the anchor has momentum to lose.
    joint = copy.copy(batches)
    joint.steps = joint.block_steps
    train_model(batches.config, learner, joint, tmp_path / "joint", resume=False, first=joint.bank_steps)
    middle = {name: value.clone() for name, value in learner.named_parameters()}
    assert not any(torch.equal(before[name], middle[name]) for name in before)
    train_model(batches.config, learner, batches, tmp_path / "last", resume=False, first=batches.block_steps)
    for name, value in learner.named_parameters():
        assert torch.equal(value, middle[name]) == name.startswith("anchor."), name
    assert all(steps == 4 and name.startswith("bank.") for name, steps in count_steps(tmp_path / "last").items())


def test_steps_of_the_last_stage_are_of_one_subtree_and_pass_over_all(batches: Batches) -> None:
    first, seen, mixed = batches.block_steps, [], 0
    for step in range(first, first + batches.per_epoch):
        chosen, _rows = batches._pick(step)
        seen += chosen
        mixed += len({int(batches.paths[number][0]) for number in chosen}) > 1
    assert len(seen) == len(set(seen)) == batches.per_epoch * batches.config.training.rows
    assert mixed <= 2, "where one of three subtrees ends and the next begins"
    assert batches._pick(first)[0] != batches._pick(first + batches.per_epoch)[0]


def test_what_is_common_alone_has_blocks_of_others_in_the_last_stage(batches: Batches) -> None:
    shares = {"wrong_share": 1.0, "common_wrong_share": 0.0, "block_wrong_share": 1.0}
    shared, draw = with_bank(batches, **shares, nearby_share=1.0), random.Random(0)
    for step, other in ((batches.block_steps - 1, False), (batches.block_steps, True)):
        drawn = [shared.draw_path(number, step, draw) for number in range(len(shared.paths))]
        own, nearby = (list(map(np.array_equal, drawn, paths)) for paths in (shared.paths, shared.nearby))
        common = [name in shared.common for name in shared.documents]
        assert all((nearby if other else own)[number] for number, known in enumerate(common) if known)
        assert all(own[number] for number, known in enumerate(common) if not known) == other
    late = with_bank(batches, generic_share=0.5)
    modes = torch.cat([late.passages_at(step).mode for step in range(late.block_steps, late.steps)])
    assert set(modes.tolist()) == {GENERIC, FETCHED}, "a row without a block would train nothing"


def test_the_last_stage_exercises_at_its_own_pace(batches: Batches) -> None:
    plan = replace(batches.config.training, exercise_every=2, block_exercise_every=3)
    other = copy.copy(batches)
    other.config = replace(batches.config, training=plan)
    assert [step for step in range(10, 24) if is_exercised(other, step)] == [10, 12, 14, 16, 17, 18, 19, 21]


@pytest.mark.parametrize("value", [[0.0], "four", ["four"], -1.0, [1.0, float("inf")], float("nan")])
def test_decays_that_are_none_are_refused(value: object) -> None:
    with pytest.raises(UserError, match="last_epochs"):
        parse_config({"training": {"last_epochs": value}}, tomllib.loads(DEFAULT.read_text()))


def test_a_bare_number_is_one_decay() -> None:
    config = parse_config({"training": {"last_epochs": 3}}, tomllib.loads(DEFAULT.read_text()))
    assert config.training.last_epochs == [3.0]


def test_reading_is_trained_beside_the_blocks_that_the_router_finds(batches: Batches) -> None:
    drawn = draw_readings(batches.world, 0, 3)
    assert drawn == draw_readings(batches.world, 0, 3)
    for segments, prompt in drawn:
        whole = "".join(text for text, _ in segments).strip()
        assert whole.startswith(prompt) and whole[len(prompt) :].startswith(
            next(text for text, known in segments if known)
        )
    path = np.array([2, 7])
    routed = with_bank(batches, routed_share=1.0)
    routed.readings = [(segments, path) for segments, _ in drawn]
    count, last = batches.config.training.reading_rows, routed.bank_steps

    def find_routed(steps: range) -> list[bool]:
        return [bool((routed.abstract_at(step).paths[:count] == torch.from_numpy(path)).all()) for step in steps]

    assert all(find_routed(range(last, last + 4)))
    assert not all(find_routed(range(last - 4, last)))
    routed.readings = []
    assert not all(find_routed(range(last, last + 4)))
