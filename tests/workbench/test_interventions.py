"""Nodes ablated and scaled for real: equal to exact patching, harmless at factor 1; curves and written tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from circuits.graph import Kind
from probes.errors import UserError
from tests.small_world import ship_world
from workbench.engine import Engine, open_engine
from workbench.interventions import intervene, read_written
from workbench.pipeline import check_node, trace
from workbench.runs import Run
from workbench.settings import Question, Settings
from workbench.size_curves import (
    DRAWS,
    FILE,
    SizeCurve,
    list_sizes,
    load_curve,
    measure_curve,
    read_faithfulness,
    save_curve,
)

SETTINGS = Settings(edges=60, device="cpu", memory="own", parts=3)


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


def pick(run: Run, kind: Kind) -> str:
    """The strongest node of a kind."""
    return max((n for n in run.circuit.nodes if n.component.kind is kind), key=lambda node: abs(node.score)).id


@pytest.mark.parametrize("kind", [Kind.HEAD, Kind.KEY_VALUE, Kind.MLP, Kind.BANK, Kind.EXPLICIT])
def test_factor_0_is_exact_patching(engine: Engine, traced: Run, kind: Kind) -> None:
    if all(node.component.kind is not kind for node in traced.circuit.nodes):
        pytest.skip(f"no {kind} among the strongest edges")
    node = pick(traced, kind)
    outcome = intervene(engine, traced, [node], 0.0)
    exact = check_node(engine, traced, node).exact
    assert outcome.before == pytest.approx(traced.about["faithfulness"]["metric_whole"], abs=1e-4)
    assert outcome.before - outcome.after == pytest.approx(exact, abs=1e-4)


def test_factor_1_changes_nothing_and_a_group_is_more_than_its_parts(engine: Engine, traced: Run) -> None:
    nodes = [pick(traced, Kind.HEAD), pick(traced, Kind.MLP)]
    same = intervene(engine, traced, nodes, 1.0)
    assert same.after == pytest.approx(same.before, abs=1e-4)
    assert all(shift.after == pytest.approx(shift.before, abs=1e-5) for shift in same.tokens)
    everything = [n.id for n in traced.circuit.nodes if n.component.kind is not Kind.LOGITS]
    gone = intervene(engine, traced, everything, 0.0)
    assert gone.after != pytest.approx(gone.before, abs=1e-3)
    assert intervene(engine, traced, everything, 0.0) == gone


def test_answers_before_and_after_name_answer_and_foil(engine: Engine, traced: Run) -> None:
    outcome = intervene(engine, traced, [pick(traced, Kind.HEAD)], 2.0)
    assert [shift.role for shift in outcome.tokens[:2]] == ["answer", "foil"]
    assert outcome.tokens[0].text == traced.pair["answer_tokens"][0]
    assert all(0 <= shift.before <= 1 and 0 <= shift.after <= 1 for shift in outcome.tokens)
    condition = next(c for c in traced.about["conditions"] if c["name"] == "parameters")
    assert len({shift.token for shift in outcome.tokens}) == len(outcome.tokens) and condition["top"]


@pytest.mark.parametrize("factor", [float("nan"), 6.0, -9.0])
def test_a_factor_out_of_range_is_refused(engine: Engine, traced: Run, factor: float) -> None:
    with pytest.raises(UserError, match="factor"):
        intervene(engine, traced, [pick(traced, Kind.HEAD)], factor)


def test_nodes_that_cannot_be_scaled_are_refused(engine: Engine, traced: Run) -> None:
    for nodes in ([], ["a9.h9@0"], [pick(traced, Kind.LOGITS)]):
        with pytest.raises(UserError):
            intervene(engine, traced, nodes, 0.0)


def test_a_data_set_gives_its_mean(engine: Engine) -> None:
    several = trace(engine, Question(facts=("capital/France", "capital/Italy")), SETTINGS)
    node = pick(several, Kind.HEAD)
    outcome = intervene(engine, several, [node], 0.0)
    assert outcome.pairs == 2 and not outcome.tokens
    assert outcome.before - outcome.after == pytest.approx(check_node(engine, several, node).exact, abs=1e-4)
    with pytest.raises(UserError, match="one pair"):
        read_written(engine, several, node)


def test_written_tokens_of_a_node_and_of_a_unit(engine: Engine, traced: Run) -> None:
    written = read_written(engine, traced, pick(traced, Kind.HEAD))
    values = [value for _, value in written.towards]
    assert values == sorted(values, reverse=True) and written.norm > 0
    assert written.towards[0][1] > written.away[0][1]
    assert traced.parts is not None
    unit = next(part for part in traced.parts.parts if part.component.kind is Kind.MLP)
    assert read_written(engine, traced, unit.id).towards
    with pytest.raises(UserError, match="writes nothing"):
        read_written(engine, traced, pick(traced, Kind.LOGITS))


def test_the_curve_ends_at_the_run_and_is_kept(engine: Engine, traced: Run, tmp_path: Path) -> None:
    curve = measure_curve(engine, traced)
    assert curve.edges == list_sizes(len(traced.circuit.edges))
    assert curve.faithfulness[-1] == pytest.approx(traced.about["faithfulness"]["normalised"], abs=1e-4)
    assert all(low <= mean <= high for low, mean, high in zip(curve.low, curve.random, curve.high, strict=True))
    assert curve.draws == DRAWS
    save_curve(tmp_path, curve)
    assert load_curve(tmp_path) == curve
    assert load_curve(tmp_path / "nowhere") is None


def test_the_curve_says_what_was_measured(traced: Run) -> None:
    count = len(traced.circuit.edges)
    curve = SizeCurve((1, 4, count), (0.0, 0.5, 1.0), (0.0,) * 3, (0.0,) * 3, (0.0,) * 3, 5, 0)
    assert read_faithfulness(traced, curve, 4).how == "measured"
    between = read_faithfulness(traced, curve, 2)
    assert between.value == pytest.approx(0.25) and between.how == "estimate from the curve"
    assert read_faithfulness(traced, None, 4).value is None
    whole = read_faithfulness(traced, None, count)
    assert whole.value == traced.about["faithfulness"]["normalised"] and whole.how == "measured"


@pytest.mark.parametrize("change", [{"version": 9}, {"edges": [3, 2]}, {"edges": []}, {"random": ["x"]}, {"more": 1}])
def test_a_damaged_curve_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    save_curve(tmp_path, SizeCurve((1, 2), (0.0, 1.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), 5, 0))
    document = json.loads((tmp_path / FILE).read_text()) | change
    (tmp_path / FILE).write_text(json.dumps(document))
    with pytest.raises(UserError, match="remove it"):
        load_curve(tmp_path)
