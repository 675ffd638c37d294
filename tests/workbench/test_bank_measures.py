"""What is measured of a bank: its storage beside the simulator, gains by task, and the table of all places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from probes.attachments import Attachment
from probes.bank import fetch_blocks, load_bank
from probes.errors import UserError
from probes.facts import load_facts
from probes.memory_bank import open_bank
from probes.models import load_model
from tests.checkpoints import load_shape
from tests.probes.test_bank import make_design
from tests.small_world import write_world
from workbench.banks import encoding
from workbench.banks.blocking import Scorer
from workbench.banks.measuring import (
    fit_tier,
    list_block_bytes,
    measure_storage,
    measure_width,
    simulate_bank,
    simulate_paper,
)
from workbench.banks.specificity import COMMON, RATINGS, SPECIFIC, Task, compare_tasks, split_tasks
from workbench.banks.writing import start_shards, write_bank
from workbench.cli import main
from workbench.costs.formats import TERA, Usage, write_parameters
from workbench.costs.shapes import read_shape
from workbench.hierarchy import list_places


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("measures") / "world")


def stay_quiet(label: str, done: int, total: int) -> None:
    """No progress in tests."""


def test_a_banks_storage_is_measured_and_simulated(tmp_path: Path) -> None:
    """Times are positive, what a text fetches is the design's, and a cache of the whole bank is met by all repeats."""
    design = make_design(ranks=(64, 32))
    write_bank(tmp_path / "bank", design, load_shape("llama").sha256, start_shards(design, 0))
    bank = load_bank(tmp_path / "bank")
    storage = measure_storage(bank, fetches=4)
    assert min(storage.cold, storage.warm, storage.disk.bandwidth, storage.memory.bandwidth) > 0
    assert 0 <= storage.dropped <= 1
    found = simulate_bank(bank, storage, texts=400, seed=0)
    assert found["fetched"] == 2 * design.fetched and found["bytes"] == 2 * design.kept
    whole = [row for row in found["rows"] if row["cache"] == found["bytes"]]
    assert len(whole) == 3
    for row in whole:
        assert all(hit >= 1 - count / 400 for hit, count in zip(row["hits"], bank.clusters, strict=True))
    for exponent in {row["exponent"] for row in found["rows"]}:
        hits = [row["hits"][0] for row in found["rows"] if row["exponent"] == exponent]
        assert hits == sorted(hits), "a larger cache is met more often"


def test_a_tier_is_the_line_through_small_and_large_reads() -> None:
    """Two milliseconds and a gigabyte a second come back; where large reads seem no slower there is no latency."""
    tier = fit_tier("disk", [(2e-3 + 4096e-9, 0.0, 4096)], [(3e-3, 0.0, 1_000_000)], 0)
    assert tier.latency == pytest.approx(2e-3) and tier.bandwidth == pytest.approx(1e9)
    busy = fit_tier("disk", [(5e-3, 0.0, 4096)], [(4e-3, 0.0, 1_000_000)], 0)
    assert busy.latency == 0 and busy.bandwidth == pytest.approx(2.5e8)


def test_the_papers_tiers_are_simulated_at_full_size() -> None:
    """Bytes are those of the inferred configuration: 38.65, 154.6 and 618.5 GB; usage decides what a cache does."""
    found = simulate_paper(texts=300, seed=0)
    assert found["kind"] == "inferred"
    assert found["bytes"] / 1e9 == pytest.approx(38.65 + 154.6 + 618.5, abs=0.1)
    assert found["fetched"] / 1e6 == pytest.approx(198.2, abs=0.05)
    small = {row["exponent"]: row for row in found["rows"] if row["cache"] == 0.001 * found["bytes"]}
    assert small[1.4]["hits"][2] > small[0.6]["hits"][2] and small[1.4]["ms"] < small[0.6]["ms"]


def test_the_papers_tasks_divide_as_printed() -> None:
    """By our ratings on its scale, threshold 2.0: six of common and seven of specific knowledge."""
    common, specific = split_tasks(RATINGS)
    assert (set(common), set(specific)) == (set(COMMON), set(SPECIFIC))
    assert (len(common), len(specific)) == (6, 7)
    assert split_tasks({"a": 1.99, "b": 2.0}) == (["a"], ["b"])
    with pytest.raises(UserError, match="0 to 5"):
        split_tasks({"a": 5.5})


def test_gains_are_fetched_less_generic(world: Path) -> None:
    """Each task's gain is the mean of its questions' own, and the correlation needs two different ratings."""
    model = load_model(str(world / "model"), device="cpu")
    bank, facts = load_bank(world / "bank", model), load_facts(world)
    tasks = [Task("first", 0.0, facts[:1]), Task("rest", 5.0, facts[1:])]
    found = compare_tasks(model, bank, tasks)
    for task, row in zip(tasks, found["rows"], strict=True):
        scorer = Scorer(model, bank, "nothing")
        own = scorer.score(task.questions, None, stay_quiet, "").log_probability
        generic = scorer.score(task.questions, None, stay_quiet, "", bank.generic_path).log_probability
        assert row["gain"] == pytest.approx(float((own - generic).mean())) != 0
        assert row["class"] == ("specific" if task.score else "common")
    assert abs(found["rank_correlation"]) == pytest.approx(1)
    assert compare_tasks(model, bank, tasks[:1])["rank_correlation"] is None
    blocks = fetch_blocks(bank, model, bank.generic_path)
    assert blocks.path == (-1, -1) and Attachment(bank=blocks).explicit is None


def test_the_hierarchy_lists_every_place(world: Path) -> None:
    """Bytes are those on disk, costs those of the formulas, facts those that can be read there."""
    model, bank, facts = world / "model", load_bank(world / "bank"), load_facts(world)
    places = {p.name: p for p in list_places(read_shape(model), model, bank, open_bank(world / "memory"), facts)}
    assert list(places) == ["text", "explicit memory", "bank, level 2", "bank, level 1", "anchor"]
    width = measure_width(bank)
    for level, size in enumerate(list_block_bytes(bank, width), start=1):
        place = places[f"bank, level {level}"]
        assert place.bytes == size * 2**level
        assert place.read == pytest.approx(2 * 64 * size / width / TERA)
        assert places["explicit memory"].write < place.write < places["anchor"].write
        assert place.source == "ours" and place.facts == sum(fact.occurrences > 0 for fact in facts)
    assert places["anchor"].bytes == (model / "model.safetensors").stat().st_size
    shape = read_shape(model)
    assert places["anchor"].write == write_parameters(shape, Usage(2, 2)).total and places["anchor"].read == 0
    assert places["text"].facts == places["explicit memory"].facts == len(facts)
    bare = list_places(shape, model, None, None, ())
    assert [place.name for place in bare] == ["text", "anchor"] and bare[0].facts is None


def test_the_commands(world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("workbench.engine", "workbench.library", "workbench.commands.bank_measures"):
        monkeypatch.setattr(f"{place}.find_shipped", lambda: world)
    model = ["--model", str(world / "model"), "--bank", str(world / "bank")]

    def run(*arguments: str) -> dict[str, object]:
        assert main([*arguments, "--json"]) == 0
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        return found

    assert len(run("hierarchy")["rows"]) == 5  # type: ignore[arg-type]
    assert main(["hierarchy", "--bank", "none"]) == 0
    assert "anchor" in capsys.readouterr().out
    assert run("bank", "tiers", "--texts", "50")["kind"] == "inferred"
    assert run("bank", "tiers", str(world / "bank"), "--fetches", "2", "--texts", "50")["measured"]
    assert main(["bank", "tiers", str(world / "bank"), "--fetches", "2", "--texts", "50"]) == 0
    assert "GB/s" in capsys.readouterr().out
    assert main(["bank", "show", str(world / "bank"), "--verify"]) == 0
    capsys.readouterr()
    tasks = world / "tasks.csv"
    tasks.write_text("task,score,prompt,answer\ncapitals,4,The capital of France is, Paris\n")
    encoding.open_encoder.cache_clear()
    for arguments, message in (
        (["bank", "tiers", "--texts", "0"], "--texts"),
        (["bank", "tiers", str(world / "model")], "bank.json"),
        (["bank", "specificity", *model, "--tasks", str(world / "facts.parquet")], "needs task, score"),
        (["bank", "specificity", *model, "--tasks", str(tasks)], "router"),
        (["bank", "specificity", *model, "--limit", "1"], "--limit"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
