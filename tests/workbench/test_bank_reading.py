"""Reading modes: which path a prompt reads in each, drawn with the seed, routed where an encoder is there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from probes.bank import GENERIC, load_bank
from probes.errors import UserError
from tests.small_world import write_routed_world
from workbench import library, pipeline
from workbench.banks import encoding
from workbench.banks.reading import choose_route, read_router
from workbench.banks.routing import Vectors
from workbench.cases import resolve
from workbench.engine import Engine
from workbench.memory.search import Encoder
from workbench.settings import READINGS, Question, Settings

PROMPT = "The capital of Peru is"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small world with a router: texts with more capitals than others go to cluster 1 of level 1."""
    return write_routed_world(tmp_path_factory.mktemp("world") / "world")


@pytest.fixture
def engine(world: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(library, "find_shipped", lambda: world)
    settings = Settings(model=str(world / "model"), bank=str(world / "bank"), memory=str(world / "memory"))
    monkeypatch.setattr("workbench.engine.read_shipped_facts", lambda: library.read_facts(world))
    monkeypatch.setattr("workbench.engine.find_shipped", lambda: world)
    return pipeline.open_engine(settings)


def install_encoder(monkeypatch: pytest.MonkeyPatch, vector: Sequence[float]) -> None:
    """An encoder that gives every text this vector."""

    def encode(texts: Sequence[str]) -> Vectors:
        return np.array([vector] * len(texts), np.float32)

    monkeypatch.setattr(encoding, "DEFAULT_ENCODER", Encoder("fixed", encode))
    encoding.open_encoder.cache_clear()


def remove_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(texts: Sequence[str]) -> Vectors:
        raise UserError("The sentence encoder is not installed")

    monkeypatch.setattr(encoding, "DEFAULT_ENCODER", Encoder("none", encode))
    encoding.open_encoder.cache_clear()


@pytest.fixture(autouse=True)
def forget_encoder() -> None:
    encoding.open_encoder.cache_clear()
    read_router.cache_clear()


def test_each_mode_reads_its_own_path(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fact of path 0 > 1 in all five modes; the router puts the text into 0, so that 1 is the next best."""
    install_encoder(monkeypatch, [0.9, 0.4, -1.0])
    paths = {}
    for name in READINGS:
        (case,) = resolve(engine, Question(fact="capital/France"), Settings(reading=name))
        paths[name] = case.clean.path
    assert paths == {
        "fetched": (0, 1),
        "generic": (GENERIC, GENERIC),
        "wrong": (1, 3),
        "blocked": (1, 3),
        "none": (),
    }


def test_typed_prompts_are_routed_where_an_encoder_is_there(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the router with the encoder, else to the generic blocks, and the answer says so."""
    install_encoder(monkeypatch, [0.1, 0.9, 0.2])
    route = choose_route(engine.bank, "fetched", None, PROMPT)
    assert route.path == (1, 2) and "routed by the sentence encoder" in route.note
    assert choose_route(engine.bank, "blocked", None, PROMPT).path[0] == 0
    remove_encoder(monkeypatch)
    route = choose_route(engine.bank, "fetched", None, PROMPT)
    assert route.path == (GENERIC, GENERIC) and "not installed" in route.note
    conditions = pipeline.ask(engine, Question(prompt=PROMPT), Settings(), lambda *_: None)
    bank = next(condition for condition in conditions if condition.name == "bank")
    assert bank.available and bank.source.startswith("generic blocks")
    conditions = pipeline.ask(engine, Question(prompt=PROMPT), Settings(reading="blocked"), lambda *_: None)
    bank = next(condition for condition in conditions if condition.name == "bank")
    assert not bank.available and "not installed" in bank.reason
    with pytest.raises(UserError, match="not installed"):
        choose_route(engine.bank, "blocked", None, PROMPT)


def test_another_bank_routes_the_facts_too(
    engine: Engine, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fact's path is one of the bank that it came with; a bank of one's own routes its prompt anew."""
    install_encoder(monkeypatch, [0.1, 0.9, 0.2])
    shutil.copytree(world / "bank", tmp_path / "own")
    fact, own = engine.facts[0], load_bank(tmp_path / "own")
    assert choose_route(engine.bank, "fetched", fact, fact.prompt).path == fact.cluster_path == (0, 1)
    assert choose_route(own, "fetched", fact, fact.prompt).path == (1, 2)


def test_the_wrong_cluster_is_drawn_with_the_seed(engine: Engine, world: Path) -> None:
    """Equal seeds draw equal paths, in another subtree, nested, all of them sooner or later."""
    bank, fact = engine.bank, engine.facts[0]
    assert bank is not None
    drawn = [choose_route(bank, "wrong", fact, PROMPT, (), seed).path for seed in range(20)]
    assert drawn == [choose_route(bank, "wrong", fact, PROMPT, (), seed).path for seed in range(20)]
    assert set(drawn) == {(1, 2), (1, 3)}
    for path in drawn:
        bank.check_path(path)
    known = {choose_route(bank, "wrong", fact, PROMPT, engine.facts, seed).path for seed in range(20)}
    assert known == {(1, 3)}, "where facts have paths, one of theirs is drawn"


def test_modes_stand_in_the_run(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The trace's settings, its memories and its command say which blocks were read."""
    install_encoder(monkeypatch, [0.9, 0.4, -1.0])
    run = pipeline.trace(engine, Question(fact="capital/France"), Settings(reading="wrong"), lambda *_: None)
    about = json.loads(json.dumps(run.about))
    assert about["memories"]["bank"]["reading"] == "wrong" == about["settings"]["reading"]
    assert about["memories"]["bank"]["path"] == [1, 3]
    assert "--reading wrong" in about["command"]
    plain = pipeline.trace(
        engine, Question(fact="capital/France"), Settings(reading="none", ablation="counterfactual"), lambda *_: None
    )
    assert plain.about["memories"]["bank"] is None


def test_a_bank_without_a_router_cannot_block(world: Path) -> None:
    bank = load_bank(world / "bank")
    with pytest.raises(UserError, match=r"has no router\.safetensors"):
        read_router(world / "model", bank.branching, len(bank.clusters))
    with pytest.raises(UserError, match="unknown reading"):
        Settings(reading="best").check()
