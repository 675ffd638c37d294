"""Placement without a model: heads tell the same as open banks, places of a table, usage, and the price of a move."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.bank import load_bank
from probes.errors import UserError
from probes.facts import load_facts
from probes.memory_bank import open_bank
from tests.small_world import write_world
from workbench import hierarchy, stored
from workbench.costs.formats import Formats, compare_formats
from workbench.costs.memory3 import SHAPE, USAGE
from workbench.costs.shapes import read_shape
from workbench.ledgers.bulk import COLUMNS, HEAD
from workbench.placement import (
    UNMEASURED,
    Measured,
    count_moves,
    list_tables,
    place_facts,
    price_move,
    read_places,
    read_usage_rows,
)
from workbench.sweeps.parts import encode_rows
from workbench.views.placement import find_range, name_ranges, tabulate_move, tabulate_ranges

FORMATS = Formats(
    write={"text": 0.0, "explicit": 2.0, "parameters": 30.0}, read={"text": 1.0, "explicit": 0.1, "parameters": 0.0}
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small world."""
    return write_world(tmp_path_factory.mktemp("world") / "shipped")


def write_table(folder: Path) -> None:
    """A table of three facts: one by its memory, one nowhere, one that is not measured."""
    shares = {"a": {"anchor": 1.0, "memory 1": 3.0, "text": 2.0}, "b": {"anchor": -1.0, "level 1": -0.5}}
    rows = [
        {"fact": fact, "row": "format", "format": name, "share": share, "margin": 6.0, "unit": "logits"}
        for fact, entries in shares.items()
        for name, share in entries.items()
    ]
    rows.append({"fact": "a", "row": "component", "format": "text", "share": 9.0, "margin": 6.0, "unit": "logits"})
    rows.append({"fact": "c", "row": "reason", "reason": "answer not known: the model says 'x'"})
    folder.mkdir(parents=True)
    (folder / "part-000000.parquet").write_bytes(encode_rows(rows, COLUMNS))
    (folder / HEAD).write_text("{}")


def test_heads_tell_what_open_banks_tell(world: Path) -> None:
    bank, memories, facts = load_bank(world / "bank"), open_bank(world / "memory"), load_facts(world)
    shape = read_shape(world / "model")
    blocks, kept = stored.read_blocks(world / "bank"), stored.read_memories(world / "memory")
    assert blocks == hierarchy.describe_blocks(bank)
    assert (kept.layers, kept.ids, kept.bytes) == (
        memories.layers,
        frozenset(memories.ids.to_pylist()),
        hierarchy.describe_memories(memories).bytes,
    )
    usage = stored.choose_usage(shape, kept)
    places = stored.list_places(shape, world / "model", blocks, kept, facts, usage)
    assert places == hierarchy.list_places(shape, world / "model", bank, memories, facts, usage)
    with pytest.raises(UserError, match=r"bank\.json"):
        stored.read_blocks(world)
    (world / "broken.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(UserError, match="no whole file of tensors"):
        stored.read_width(world / "broken.safetensors")


def test_places_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path / "runs" / "places")
    monkeypatch.chdir(tmp_path)
    assert list(list_tables(Path("runs"))) == ["places"]
    assert list(list_tables(tmp_path / "elsewhere")) == ["runs/places"]
    places = read_places(tmp_path / "runs" / "places")
    assert places["a"] == Measured("explicit", "memory 1", 3.0, 6.0, "logits", True)
    assert (places["b"].lives, places["b"].share) == ("nowhere", -0.5)
    assert places["c"].lives == UNMEASURED and "not known" in places["c"].reason
    with pytest.raises(UserError, match="no parts"):
        read_places(tmp_path)


def test_usage_of_a_table_is_checked() -> None:
    assert read_usage_rows([{"id": "a", "usage": "3"}, {"id": "b", "n": 0}], "it") == {"a": 3.0, "b": 0.0}
    for rows in ([{"id": "a"}], [{"usage": 3}], [{"id": "a", "usage": "many"}], [{"id": "a", "usage": -1}], []):
        with pytest.raises(UserError):
            read_usage_rows(rows, "it")


def test_a_move_costs_its_writes_and_saves_its_reads(world: Path) -> None:
    """Ten facts' worth by hand: text read 40 times costs 40, as explicit memory 2 + 4."""
    facts = load_facts(world)
    first, second, third = (fact.id for fact in facts)
    places = {
        first: Measured("text", "text", 1.0, 2.0, "logits", True),
        second: Measured("explicit", "memory 1", 1.0, 2.0, "logits", True),
    }
    placements = place_facts(facts, {first: 40.0, second: 40.0, third: 1000.0}, places, FORMATS)
    assert [one.recommended for one in placements] == ["explicit", "explicit", "parameters"]
    assert [one.lives for one in placements] == ["text", "explicit", UNMEASURED]
    assert placements[0].saving_moved == pytest.approx(34.0) and placements[2].saving is None
    move = price_move(placements, "explicit", FORMATS)
    assert (move.facts, move.skipped, move.write, move.before) == (1, 2, 2.0, 40.0)
    assert move.saved == pytest.approx(34.0)
    assert price_move(placements, "parameters", FORMATS).saved == pytest.approx(44 - 60)
    assert tabulate_move([move])["saved in all, TFlops"] == [pytest.approx(34.0)]
    assert count_moves(placements)[("text", "explicit")] == 1


def test_ranges_follow_from_the_cost_model() -> None:
    """The paper's interval; where explicit memory is never the cheapest, text meets parameters."""
    formats = compare_formats(SHAPE, USAGE)
    (_, _, low), (name, start, high), (_, last, _) = name_ranges(formats)
    assert (name, low, high) == ("explicit", start, last) and formats.place((low + high) / 2) == "explicit"
    assert find_range(formats, [0.0, 5.0]) == (-2, 6)
    dear = Formats(
        write={"text": 0.0, "explicit": 29.0, "parameters": 30.0}, read={"text": 1.0, "explicit": 0.9, "parameters": 0}
    )
    assert name_ranges(dear) == [("text", 0.0, 30.0), ("parameters", 30.0, pytest.approx(float("inf")))]
    assert tabulate_ranges(dear)["cheapest from, reads"] == [0.0, None, 30.0]
