"""Sweeps of the small world: pairs scored apart, every fact accounted for, kills survived, any workers alike."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from circuits.methods import Options
from circuits.pairs import APART, score_pairs
from circuits.scoring import score
from probes.errors import UserError
from probes.progress import quiet
from tests.small_world import CITIES, ship_world
from workbench import library
from workbench.cases import resolve
from workbench.cli import main
from workbench.engine import Engine, open_engine
from workbench.ledgers.measuring import measure_batch
from workbench.ledgers.prompts import lay_fact
from workbench.problems import pose
from workbench.settings import Question, Settings
from workbench.sweeps.measuring import attempt, prepare_measurer
from workbench.sweeps.parts import Block, hold_folder, load_table
from workbench.sweeps.plans import Order, change_settings, plan_sweep, pool_facts
from workbench.sweeps.sweeping import sweep

ROOT = Path(__file__).parents[2]
SETTINGS = Settings(device="cpu", rows=2, memory="own")
# Seconds for one process; a busy machine takes a minute to import what a sweep needs.
PATIENCE = 600
ORDER = Order(SETTINGS, ("given", "text"), ("eap", "ledger"), top=4, chunk=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The small world in place of what is shipped."""
    with ship_world(tmp_path_factory.mktemp("world") / "shipped") as folder:
        yield folder


@pytest.fixture(scope="module")
def engine(world: Path) -> Engine:
    """Engine of the small world."""
    return open_engine(SETTINGS)


def write_facts(path: Path, count: int = 6) -> Path:
    """Facts of one relation with prompts of several lengths, a duplicate, one that cannot be read, one without foil."""
    names, cities = ("Fran", "Berta", "Carl", "Dora", "Emil", "Gus"), ("Paris", "Rome", "Oslo")
    rows: list[dict[str, Any]] = [{"id": "capital/France"}, {"id": "capital/Italy"}, {"id": "capital/Anna"}]
    for index in range(count):
        name, city = f"{names[index % 6]}{'x' * (index // 6)}", cities[index % 3]
        prompt = f"The capital of {name} is"
        rows.append(
            {"id": f"own/{index}", "subject": f"<{name}>", "relation": "capital", "object": city, "prompt": prompt,
             "answer": f" {city}"}
        )  # fmt: skip
    rows += [{"id": "capital/France"}, {"id": "broken"}]
    rows.append({**rows[3], "id": "alone", "subject": "Zed", "relation": "colour", "prompt": "The colour of Zed is"})
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def read_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a table but the lock, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


def write_own(path: Path, count: int) -> Path:
    """Facts that are in no shipped table, every third with an explicit memory."""
    cities, subjects = tuple(CITIES.values()), tuple(CITIES)
    rows = [
        {
            "id": f"own/{index}",
            "subject": f"<{index}>",
            "relation": "has-as-capital",
            "object": cities[index % 3],
            "prompt": f"The capital of {'very ' * (index % 4)}{subjects[index % 3]} number {index} is",
            "answer": f" {cities[index % 3]}",
            "cluster_path": [index % 2, 2 * (index % 2) + 1],
            "document_id": f"document/{subjects[index % 3]}" if index % 3 == 0 else "",
        }
        for index in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, [*rows, {"id": "broken"}])))
    return path


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; one that ended and waits to be taken note of does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def find_stores(world: Path) -> Settings:
    """Settings that name the small world's model, bank and memories."""
    return replace(SETTINGS, model=str(world / "model"), bank=str(world / "bank"), memory=str(world / "memory"))


def start(world: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A sweep over the small world's model, bank and memories in a process of its own."""
    stores = [part for name in ("model", "bank", "memory") for part in (f"--{name}", str(world / name))]
    sizes = ["--chunk", "4", "--rows", "4", "--top", "3", "--device", "cpu", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "workbench.cli", "sweep", *arguments, *stores, *sizes],
        cwd=world, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_scores_of_a_pair_in_a_batch_are_those_it_has_alone(engine: Engine) -> None:
    """Every method that scores pairs apart, on prompts with memory and bank."""
    cases = resolve(engine, Question(facts=("capital/France", "capital/Italy")), SETTINGS)
    options = Options(steps=2)
    for method in APART:
        settings = replace(SETTINGS, method=method)
        problem = pose(engine, cases, settings, summed=True, alone=False)
        apart = score_pairs(problem, method, options)
        for row, case in enumerate(cases):
            one = pose(engine, (case,), settings, summed=True)
            alone = score(one, method, options, quiet)
            np.testing.assert_allclose(
                apart[row], alone.edges[0], atol=2e-5 * np.abs(alone.edges).max(), err_msg=method
            )
            assert problem.each_clean[row] == pytest.approx(one.metric_clean, abs=1e-5)
            assert problem.each_ablated[row] == pytest.approx(one.metric_ablated, abs=1e-5)
    with pytest.raises(UserError, match="does not score the pairs"):
        score_pairs(problem, "exact", options)


def test_every_fact_is_measured_or_has_a_reason(engine: Engine, world: Path, tmp_path: Path) -> None:
    """Facts x conditions x methods are all there once; values are those of a trace and of a ledger."""
    facts = write_facts(tmp_path / "facts.jsonl")
    found = sweep(facts, tmp_path / "table", ORDER)
    assert (found["facts"], found["resumed"]) == (12, 0)
    rows = load_table(tmp_path / "table").to_pylist()
    keys = {(row["fact"], row["condition"], row["method"]) for row in rows if row["condition"]}
    assert len(keys) == 10 * 2 * 2
    assert {method for _, _, method in keys} == {"eap", "ledger"}
    early = {row["fact"]: row["reason"] for row in rows if not row["condition"]}
    assert "duplicate" in early["capital/France"]
    assert "no shipped fact has the id" in early["broken"]
    late = {(row["fact"], row["condition"], row["method"]): row["reason"] for row in rows if row["row"] == "reason"}
    assert "no counterfactual" in late["alone", "given", "eap"]
    assert "no text about this fact" in late["own/0", "text", "ledger"]
    edges = [row for row in rows if (row["fact"], row["condition"], row["row"]) == ("capital/Anna", "given", "edge")]
    assert 0 < len(edges) <= ORDER.top
    sizes = [abs(row["value"]) for row in edges]
    assert sizes == sorted(sizes, reverse=True)
    assert {(row["unit"], row["ablation"], row["metric"]) for row in edges} == {
        ("logits", "counterfactual", "logit-diff")
    }
    foils = [one for one in library.read_shipped_facts() if one.answer == edges[0]["foil"]]
    assert foils and edges[0]["margin"] != edges[0]["ablated"]


def test_rows_of_a_ledger_are_those_of_the_ledger(engine: Engine) -> None:
    """The share of every format, as `ledger` measures it."""
    fact = engine.facts[0]
    order = replace(ORDER, methods=("ledger",))
    measurer = prepare_measurer(engine, order, "all", pool_facts(engine.model, engine.facts, 0))
    (block,) = measurer.measure([fact])
    rows = block.list_rows()
    settings = change_settings(SETTINGS, "all")
    laid = lay_fact(engine, fact, (fact, *(o for o in engine.facts if o.id != fact.id)), settings)
    (ledger,) = measure_batch(engine, [laid], "renormalised", "logit-diff", 4, 0.0)
    if ledger.known:
        shares = {row["format"]: row["value"] for row in rows if row["row"] == "format"}
        assert shares == {entry.name: pytest.approx(entry.share, abs=1e-9) for entry in ledger.entries}
    else:
        assert "answer not known" in rows[0]["reason"]


def test_a_batch_that_fails_loses_only_the_fact_that_does_not_run() -> None:
    """Halved until the fact stands alone; what else goes wrong surfaces."""

    def work(batch: Any) -> dict[str, Block]:
        if "c" in batch:
            raise RuntimeError("the  device\nsays no")
        return {name: Block({}, {"row": ["edge"]}) for name in batch}

    found = attempt(tuple("abcde"), str, work)
    assert [found[name].columns["row"][0] for name in "abcde"] == ["edge", "edge", "reason", "edge", "edge"]
    assert found["c"].list_rows() == [{"row": "reason", "reason": "RuntimeError: the device says no"}]

    def break_down(batch: Any) -> dict[str, Block]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        attempt(("a",), str, break_down)


def test_the_plan_does_not_know_the_workers(world: Path, tmp_path: Path) -> None:
    """Conditions outside, chunks of facts inside; only facts that differ from shipped ones travel."""
    plan = plan_sweep(write_facts(tmp_path / "facts.jsonl"), library.read_shipped_facts(), ("given", "text"), 4)
    assert [(job.condition, len(job.facts)) for job in plan.jobs] == [
        (name, size) for name in ("given", "text") for size in (4, 4, 2)
    ]
    assert [job.number for job in plan.jobs] == list(range(6))
    assert all(not fact.id.startswith("capital/") for fact in plan.own)
    assert len(plan_sweep(None, library.read_shipped_facts(), ("given",), 2).jobs) == 2


def test_orders_that_cannot_be(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names, numbers and folders that are refused; exit code 2 and one line."""
    for wrong in (
        {"methods": ("eap", "eap")},
        {"methods": ()},
        {"conditions": ("dream",)},
        {"top": -1},
        {"chunk": 0},
        {"threads": 0},
        {"settings": replace(SETTINGS, metric="kl")},
    ):
        with pytest.raises(UserError):
            replace(ORDER, **wrong).check()  # type: ignore[arg-type]
    out = str(tmp_path / "out")
    for arguments in (
        ["--processes", "0"],
        ["--gpus", "1"],
        ["--at-least", "nan"],
        ["--engine", "ray", "--address", "nowhere", "--processes", "0"],
    ):
        assert main(["sweep", "--out", out, *arguments, "--json"]) == 2
        assert "error" in json.loads(capsys.readouterr().err)
    assert not Path(out).exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="is no sweep"):
        sweep(None, tmp_path / "other", ORDER)


def test_another_process_may_not_write_the_same_folder(world: Path, tmp_path: Path) -> None:
    """The folder is held while it is written, and only then; leftovers of a killed process go."""
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / ".part-000000.parquet.abc").write_text("half")
    with hold_folder(tmp_path / "table"), pytest.raises(UserError, match="another process is writing"):
        sweep(None, tmp_path / "table", ORDER)
    assert not list((tmp_path / "table").glob(".part-*"))
    with hold_folder(tmp_path / "table"):
        pass


def fork_sweep(facts: Path, folder: Path) -> int:
    """Begin a sweep in a process of its own, which has all modules already; gives its number."""
    child = os.fork()
    if not child:
        try:
            sweep(facts, folder, ORDER)
        finally:
            os._exit(0)
    return child


# From Python 3.12 on a fork beside other threads is warned of; the child here touches none of them.
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_killed_at_random_moments_and_resumed_the_table_is_the_same(
    engine: Engine, world: Path, tmp_path: Path
) -> None:
    """A real process is killed (-9) again and again; when the sweep is done, every byte is as if it never was."""
    facts, draw, folder = write_facts(tmp_path / "facts.jsonl", 30), random.Random(7), tmp_path / "killed"
    whole = sweep(facts, tmp_path / "whole", ORDER)
    expected, kills = read_bytes(tmp_path / "whole"), 0
    for _ in range(5):
        there = len(list(folder.glob("part-*")))
        child = fork_sweep(facts, folder)
        while len(list(folder.glob("part-*"))) <= there:
            time.sleep(0.001)
        time.sleep(draw.random() * 0.1)
        os.kill(child, signal.SIGKILL)
        kills += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        kept = {name: data for name, data in read_bytes(folder).items() if not name.startswith(".")}
        assert kept.items() < expected.items()
    assert kills == 5
    assert sweep(facts, folder, ORDER) == {**whole, "resumed": len(kept) - 1}
    assert read_bytes(folder) == expected


@pytest.mark.timeout(PATIENCE)
def test_two_processes_give_the_bytes_of_one(world: Path, tmp_path: Path) -> None:
    """Weights are shared with workers of their own, which are started from nothing."""
    facts, order = write_own(tmp_path / "facts.jsonl", 12), replace(ORDER, settings=find_stores(world))
    sweep(facts, tmp_path / "one", order)
    assert sweep(facts, tmp_path / "two", order, workers=2)["resumed"] == 0
    assert read_bytes(tmp_path / "one") == read_bytes(tmp_path / "two")


@pytest.mark.slow
@pytest.mark.timeout(3 * PATIENCE)
def test_with_several_processes_killed_and_resumed(world: Path, tmp_path: Path) -> None:
    """The command itself, with two processes, killed twice; its workers end with it."""
    facts, folder = str(write_own(tmp_path / "facts.jsonl", 60)), tmp_path / "killed"
    output, errors = start(world, facts, "--out", str(tmp_path / "whole")).communicate(timeout=PATIENCE)
    document = json.loads(output or errors)
    counted = sum(row["facts"] for name in ("measured", "not_measured") for row in document[name])
    assert (document["facts"], document["parts"], counted) == (61, 15, 2 * 60 + 1)
    for _ in range(2):
        there = len(list(folder.glob("part-*")))
        process = start(world, facts, "--out", str(folder), "--processes", "2")
        while process.poll() is None and len(list(folder.glob("part-*"))) <= there:
            time.sleep(0.005)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        # The workers hold the same ends of its output, so this also waits for them.
        process.communicate(timeout=PATIENCE)
        assert len(workers) >= 2
        end = time.monotonic() + PATIENCE
        while any(map(is_alive, workers)):
            assert time.monotonic() < end
            time.sleep(0.05)
    output, errors = start(world, facts, "--out", str(folder), "--processes", "2").communicate(timeout=PATIENCE)
    assert json.loads(output or errors)["resumed"] >= 2
    assert read_bytes(folder) == read_bytes(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(3 * PATIENCE)
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_ray_gives_the_same_bytes_though_a_worker_is_killed(world: Path, tmp_path: Path) -> None:
    """A local cluster of two actors, one of them killed in the middle: Ray starts it again, and nothing differs."""
    facts, folder = str(write_own(tmp_path / "facts.jsonl", 200)), tmp_path / "ray"
    output, errors = start(world, facts, "--out", str(tmp_path / "local")).communicate(timeout=PATIENCE)
    assert json.loads(output or errors)["parts"] == 50
    process = start(world, facts, "--out", str(folder), "--engine", "ray", "--processes", "2")
    while process.poll() is None and not list(folder.glob("part-*")):
        time.sleep(0.01)
    family = psutil.Process(process.pid).children(recursive=True)
    actors = [one for one in family if any("ray::Worker" in word for word in one.cmdline())]
    assert len(actors) == 2
    actors[0].kill()
    assert len(list(folder.glob("part-*"))) < 50
    output, errors = process.communicate(timeout=PATIENCE)
    assert json.loads(output or errors)["resumed"] == 0
    assert read_bytes(folder) == read_bytes(tmp_path / "local")
