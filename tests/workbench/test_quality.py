"""Quality of a saved run: every part is measured, kept beside the run and read back; stopping leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from probes.errors import UserError
from tests.small_world import ship_world
from workbench import cli
from workbench.engine import Engine, open_engine
from workbench.jobs import Cancelled
from workbench.pipeline import trace
from workbench.quality import FILE, PARTS, Effort, load_quality, measure_run, save_quality
from workbench.runs import Run, save_run
from workbench.settings import Question, Settings

SETTINGS = Settings(edges=40, device="cpu", memory="none")


@pytest.fixture(scope="module", autouse=True)
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with ship_world(tmp_path_factory.mktemp("world") / "shipped"):
        yield


@pytest.fixture(scope="module")
def engine(_world: None) -> Engine:
    """Engine of the small world."""
    return open_engine(SETTINGS)


@pytest.fixture(scope="module")
def traced(engine: Engine) -> Run:
    """A run of one fact."""
    return trace(engine, Question(fact="capital/France"), SETTINGS)


def test_every_part_is_measured_and_kept(
    engine: Engine, traced: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints what the file holds; the circuit's own faithfulness is the run's."""
    folder = tmp_path / "run"
    save_run(traced, folder)
    assert cli.main(["quality", str(folder), "--draws", "2", "--sample", "6", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    found = load_quality(folder)
    assert found is not None
    assert found.items() <= document.items()
    assert found["ablations"]["sufficiency"] == pytest.approx(traced.about["faithfulness"]["normalised"], abs=1e-4)
    assert found["ablations"]["edges"]["parts"] == len(traced.circuit.edges)
    assert found["curves"]["absolute"]["faithfulness"][-1] == pytest.approx(1.0, abs=1e-3)
    assert found["agreement"]["sampled"] == 6
    assert [row["name"] for row in found["overlap"] if row["kind"] == "ablation"] == ["Mean", "Zero"]
    assert all(0 <= row["jaccard"] <= 1 for row in found["overlap"])
    assert cli.main(["quality", str(folder), "--part", "ablations", "--draws", "2"]) == 0
    assert "necessity" in capsys.readouterr().out
    assert "curves" not in (load_quality(folder) or {})


def test_a_run_over_several_pairs_has_a_quality(engine: Engine) -> None:
    """Masks over a batch of pairs; node methods and exact ones have no estimate to compare and say so."""
    settings = replace(SETTINGS, method="exact-nodes", ablation="zero")
    run = trace(engine, Question(facts=("capital/France", "capital/Italy")), settings)
    found = measure_run(engine, run, Effort(("agreement", "ablations"), draws=2))
    assert "does not estimate" in found["agreement"]["reason"]
    assert found["ablations"]["sufficiency"] == pytest.approx(run.about["faithfulness"]["normalised"], abs=1e-4)


@pytest.mark.parametrize("part", PARTS)
def test_work_can_be_stopped(engine: Engine, traced: Run, part: str) -> None:
    """Every part calls the tick with its own label between its units."""
    labels: list[str] = []

    def stop(label: str, done: int, total: int) -> None:
        labels.append(label)
        if label not in ("reference prompts", "clean and ablated run"):
            raise Cancelled

    with pytest.raises(Cancelled):
        measure_run(engine, traced, Effort((part,), draws=2, sample=6), stop)
    assert len(labels) == 2


def test_what_cannot_be_measured_is_one_line(engine: Engine, traced: Run, tmp_path: Path) -> None:
    """Numbers out of range, an empty circuit, a file that was edited."""
    with pytest.raises(UserError, match="draws is 0"):
        measure_run(engine, traced, Effort(draws=0))
    with pytest.raises(UserError, match="unknown part"):
        measure_run(engine, traced, Effort(("everything",)))
    with pytest.raises(UserError, match="has no edges"):
        measure_run(engine, replace(traced, circuit=replace(traced.circuit, edges=())), Effort())
    assert load_quality(tmp_path) is None
    save_quality(tmp_path, {"format": "other"})
    with pytest.raises(UserError, match="not of this release"):
        load_quality(tmp_path)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        load_quality(tmp_path)
