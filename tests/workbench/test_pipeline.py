"""The whole flow on a small world: every method, ablation and metric; replay; exact checks; bad questions."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np
import pytest

from probes.errors import UserError
from probes.writing import Recipe
from tests.checkpoints import write_checkpoint
from tests.encoders import encode_letters
from tests.small_world import ship_world
from workbench import library
from workbench.cases import resolve
from workbench.checks import check_part
from workbench.engine import Engine, open_engine
from workbench.memory import search
from workbench.memory.documents import list_files
from workbench.memory.writing import write_documents
from workbench.pipeline import ask, check_node, restore_cases, trace
from workbench.replaying import compare_runs, replay
from workbench.runs import encode_run, load_run, save_run
from workbench.settings import METHODS, Question, Settings

SETTINGS = Settings(edges=60, device="cpu")
SEEN = Question(fact="capital/France")
UNSEEN = Question(fact="capital/Anna")


@pytest.fixture(scope="module", autouse=True)
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with ship_world(tmp_path_factory.mktemp("world") / "shipped"):
        yield


@pytest.fixture(scope="module")
def engine(_world: None) -> Engine:
    """Engine of the small world."""
    return open_engine(SETTINGS)


def test_a_seen_fact_is_traced_with_its_bank_blocks(engine: Engine, tmp_path: Path) -> None:
    """Nodes, memories, tokens and results are all in the run; saved and loaded it is the same run."""
    run = trace(engine, SEEN, SETTINGS)
    assert run.about["memories"]["bank"]["path"] == [0, 1]
    assert run.about["memories"]["explicit"] is None
    assert run.pair["answer"] == " Paris"
    assert run.pair["foil"] == " Rome"
    assert 10 < len(run.circuit.edges) <= 60
    assert run.circuit.total == run.scores.wiring.edges * len(run.tokens)
    assert any(writer.name == "f2.l1" for writer in run.scores.wiring.writers)
    assert run.recording.context.sum(axis=-1) == pytest.approx(1.0, abs=2e-3)
    faithful = run.about["faithfulness"]
    share = (faithful["metric_circuit"] - faithful["metric_empty"]) / (
        faithful["metric_whole"] - faithful["metric_empty"]
    )
    assert faithful["normalised"] == pytest.approx(share)
    save_run(run, tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    assert compare_runs(run, loaded) == ()
    assert loaded.circuit == run.circuit


def test_a_never_seen_fact_comes_with_its_explicit_memory(engine: Engine) -> None:
    """Explicit memory is attached, shares one softmax with the context, and its kept tokens are listed."""
    run = trace(engine, UNSEEN, replace(SETTINGS, bank="none"))
    (block,) = run.about["memories"]["explicit"]["blocks"]
    assert block["id"] == "document/Anna"
    assert "Oslo" in block["text"]
    kept = np.array(block["kept"])
    assert kept.shape == (2, 2, 4)
    assert kept.max() < len(block["tokens"])
    layers = [run.recording.context[layer] for layer in (0, 1)]
    total = np.stack(layers).sum(axis=-1) + run.recording.memory.sum(axis=(-1, -2))
    assert total == pytest.approx(1.0, abs=2e-3)
    assert any(writer.name == "x1.h3.b0" for writer in run.scores.wiring.writers)


def test_text_in_the_prompt_is_a_span_and_its_answer_is_swapped(engine: Engine) -> None:
    """With text, the counterfactual text says the foil, the question stays, and the text is a named span."""
    run = trace(engine, UNSEEN, replace(SETTINGS, text="auto", memory="none"))
    pair = run.pair
    assert pair["clean"].startswith("The capital of Anna is Oslo.")
    assert pair["foil"].strip() in pair["counterfactual"]
    assert pair["counterfactual"].endswith("The capital of Anna is")
    assert pair["spans"][0]["name"] == "text"
    assert run.about["memories"]["text"]["text"] == "The capital of Anna is Oslo."


@pytest.mark.parametrize(
    ("method", "ablation"),
    [(method, "counterfactual") for method in METHODS]
    + [("eap-ig", "mean"), ("eap", "zero"), ("eap", "memory-contribution"), ("atp", "memory-renormalised")],
)
def test_every_method_and_ablation_runs(engine: Engine, method: str, ablation: str) -> None:
    """Each names itself in the circuit, and the command that is recorded says the same."""
    bank = "auto" if ablation.startswith("memory") else "none"
    few = replace(SETTINGS, edges=30, updates=4, threshold=0.5, steps=2, bank=bank, memory="none")
    run = trace(engine, SEEN, replace(few, method=method, ablation=ablation))
    unit = METHODS[method].unit or "logits"
    assert (run.circuit.method, run.circuit.ablation, run.circuit.unit) == (method, ablation, unit)
    assert np.isfinite(run.scores.edges).all()
    assert "--edges 30" in run.about["command"]


@pytest.mark.parametrize("selection", ["threshold", "backward-greedy", "optimal"])
def test_every_selection_runs_and_is_recorded(engine: Engine, selection: str) -> None:
    """The rule is named in the run and its command, with what it says about the circuit; stable needs several pairs."""
    settings = replace(SETTINGS, selection=selection, threshold=0.05, memory="none")
    run = trace(engine, SEEN, settings)
    assert run.about["selection"]["name"] == selection
    assert f"--selection {selection}" in run.about["command"]
    if selection == "threshold":
        assert min(abs(edge.score) for edge in run.circuit.edges) >= 0.05
    if selection == "optimal":
        assert run.about["selection"]["gap"] <= 1e-6
        assert run.about["selection"]["sum"] == pytest.approx(sum(abs(edge.score) for edge in run.circuit.edges))


@pytest.mark.parametrize(("metric", "unit"), [("log-prob", "nats"), ("prob", "probability"), ("kl", "nats")])
def test_every_metric_has_its_unit(engine: Engine, metric: str, unit: str) -> None:
    """Metrics other than the logit difference run by integrated gradients and carry their unit."""
    run = trace(engine, SEEN, replace(SETTINGS, metric=metric, method="eap-ig"))
    assert run.scores.unit == unit == run.about["faithfulness"]["unit"]


def test_conditions_say_what_was_attached_or_why_not(engine: Engine) -> None:
    """Four conditions in order; a prompt about nobody has no memory and says so."""
    seen = ask(engine, SEEN, SETTINGS)
    assert [condition.name for condition in seen] == ["parameters", "bank", "explicit memory", "text"]
    assert all(condition.available for condition in seen)
    assert seen[1].source == "clusters 0 > 1"
    for condition in seen:
        assert condition.answer is not None
        assert condition.answer.text == " Paris"
        assert 0 < condition.top[0].probability <= 1
    nobody = ask(engine, Question(prompt="plums and"), SETTINGS)
    assert [condition.available for condition in nobody] == [True, True, False, False]
    assert nobody[1].source.startswith("generic blocks: the prompt cannot be routed")


def test_the_same_run_twice_has_the_same_bytes(engine: Engine) -> None:
    """Determinism: every file of the folder, byte for byte, from two engines."""
    first = encode_run(trace(engine, SEEN, SETTINGS))
    second = encode_run(trace(open_engine(SETTINGS), SEEN, SETTINGS))
    assert first == second


def test_replay_names_what_moved(engine: Engine) -> None:
    """Nothing moves on the same machine; a changed number is named with its size."""
    run = trace(engine, SEEN, SETTINGS)
    assert replay(run, engine) == ()
    changed = replace(run, scores=replace(run.scores, edges=run.scores.edges * 1.5))
    (row,) = replay(changed, engine)
    assert row.name.startswith("scores.edges[")
    assert row.difference == pytest.approx(row.recorded / -3.0, rel=1e-4)


@pytest.mark.parametrize(
    ("question", "where", "words"),
    [(SEEN, ("model",), "loaded model"), (SEEN, ("memories", "bank"), "memory bank"),
     (UNSEEN, ("memories", "explicit"), "bank of explicit memories")],
)  # fmt: skip
def test_what_a_run_was_not_made_with_is_refused(
    engine: Engine, question: Question, where: tuple[str, ...], words: str
) -> None:
    """Model and banks are known by their hashes; replay, which may differ, names them with both."""
    run = trace(engine, question, SETTINGS)
    assert restore_cases(engine, run)
    about = copy.deepcopy(run.about)
    reduce(lambda value, name: value[name], where, about)["sha256"] = "0" * 64
    old = replace(run, about=about)
    with pytest.raises(UserError, match=f"the {words} is not the one of this run"):
        restore_cases(engine, old)
    assert [row.name for row in replay(old, engine)] == [".".join([*where, "sha256"])]


def test_a_replay_on_another_version_says_so_with_the_difference(engine: Engine) -> None:
    run = trace(engine, SEEN, SETTINGS)
    about = copy.deepcopy(run.about)
    name = sorted(about["versions"])[0]
    now, about["versions"][name] = about["versions"][name], "0.0.1"
    (moved,) = replay(replace(run, about=about), engine)
    assert (moved.name, moved.recorded, moved.replayed) == (f"versions.{name}", "0.0.1", now)


def test_exact_check_stands_beside_the_estimate(engine: Engine) -> None:
    """For a run by exact patching, checking a node gives the recorded score; key-value heads are checked too."""
    run = trace(engine, SEEN, replace(SETTINGS, method="exact", edges=40))
    node = max((n for n in run.circuit.nodes if n.component.name != "logits"), key=lambda n: abs(n.score)).id
    check = check_node(engine, run, node if ".kv" not in node else "m1@2")
    assert check.exact == pytest.approx(check.estimate, abs=1e-4)
    assert check.unit == "logits"
    assert np.isfinite(check_node(engine, run, "a1.kv0@2").exact)
    for bad, message in (("m1@99", "positions 0 to"), ("logits@5", "what is measured"), ("a9.h0@1", "not a writer")):
        with pytest.raises(UserError, match=message):
            check_node(engine, run, bad)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question(), "either a fact or a prompt"),
        (Question(fact="capital/Frence"), "did you mean capital/France"),
        (Question(prompt="The capital of France is"), "needs its answer"),
        (Question(prompt="The capital of France is", answer="Paris"), "needs a counterfactual prompt"),
        (
            Question(prompt="The capital of France is", answer="Paris", counterfactual="The capital is"),
            "positions must match",
        ),
        (
            Question(
                prompt="The capital of France is",
                answer="Zanzibar",
                counterfactual="The capital of Italy is",
                foil="Rome",
            ),
            "choose a foil of the same length",
        ),
    ],
)
def test_bad_questions_say_what_to_do(engine: Engine, question: Question, message: str) -> None:
    """One clear line each."""
    with pytest.raises(UserError, match=message):
        trace(engine, question, SETTINGS)


def test_a_trained_fact_may_be_asked_with_its_own_memory_and_another_answer(engine: Engine) -> None:
    """`own` attaches the explicit memory of a trained fact; the question may ask what speaks for another answer."""
    run = trace(engine, Question(fact="capital/France", answer="Oslo", foil="Paris"), replace(SETTINGS, memory="own"))
    assert run.about["memories"]["explicit"]["blocks"][0]["id"] == "document/France"
    assert (run.pair["answer"], run.pair["foil"]) == (" Oslo", " Paris")


def test_a_typed_prompt_is_traced_with_the_memories_of_its_subject(engine: Engine) -> None:
    """Foil and memories are found when they are not given."""
    question = Question(prompt="The capital of France is", answer="Paris", counterfactual="The capital of Italy is")
    run = trace(engine, question, SETTINGS)
    assert run.about["memories"]["bank"]["path"] == [0, 1]
    assert run.about["memories"]["bank"]["counterfactual_path"] == [1, 3]
    assert run.pair["foil"] != run.pair["answer"]


@pytest.mark.parametrize("shape", ["gpt2", "pythia", "qwen3"])
def test_other_checkpoints_are_traced_without_the_shipped_memories(shape: str) -> None:
    """A folder of another architecture runs with nothing attached."""
    settings = replace(SETTINGS, model=str(write_checkpoint(shape)))
    engine = open_engine(settings)
    question = Question(prompt="The capital of France is", answer="Paris", counterfactual="The capital of Italy is")
    run = trace(engine, question, settings)
    assert run.about["memories"] == {"bank": None, "explicit": None, "text": None}
    assert run.about["model"]["name"] == shape


def test_memories_of_another_model_are_refused() -> None:
    """A bank or memory made for another model is not attached."""
    folder = library.find_shipped()
    for option in ({"bank": str(folder / "bank")}, {"memory": str(folder / "memory")}):
        with pytest.raises(UserError, match="made for another model"):
            open_engine(replace(SETTINGS, model=str(write_checkpoint("qwen2")), **option))
    with pytest.raises(UserError, match="no plain rotary attention"):
        open_engine(replace(SETTINGS, model=str(write_checkpoint("gpt2")), memory=str(folder / "memory")))


def write_table(folder: Path, rows: list[dict[str, object]]) -> Question:
    """Question of a table of pairs."""
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Question(pairs=str(path))


PAIRS: list[dict[str, object]] = [
    {
        "prompt": "The capital of France is",
        "counterfactual": "The capital of Italy is",
        "answer": "Paris",
        "foil": "Rome",
    },
    {"prompt": "In Italy", "counterfactual": "In France", "answer": " Rome is Rome", "foil": " Paris is Paris", "x": 1},
    {"prompt": "Anna eats", "counterfactual": "Anna lives", "answer": "plums", "foil": "Oslo"},
]


def test_a_table_of_pairs_is_the_mean_of_its_pairs(engine: Engine, tmp_path: Path) -> None:
    """Pairs of different lengths, an answer of several tokens, memories of their own: scores are means of single runs.

    The run saves, loads, replays, and its nodes are checked exactly at the one position there is.
    """
    settings = replace(SETTINGS, edges=40, memory="none")
    question = write_table(tmp_path, PAIRS)
    run = trace(engine, question, settings)
    single = [
        trace(
            engine, Question(**{key: str(row[key]) for key in ("prompt", "counterfactual", "answer", "foil")}), settings
        )
        for row in PAIRS
    ]
    assert len({len(one.tokens) for one in single}) > 1
    assert single[1].tokens[-2:] == [" Rome", " is"]
    mean = np.mean([one.scores.edges.sum(axis=0) for one in single], axis=0)
    assert np.abs(run.scores.edges[0] - mean).max() < 1e-4 * np.abs(mean).max()
    whole = np.mean([one.about["faithfulness"]["metric_whole"] for one in single])
    assert run.about["faithfulness"]["metric_whole"] == pytest.approx(whole, abs=1e-4)
    assert run.tokens == ["every position"] and run.about["summed"]
    assert all(move.weight == 1.0 for move in run.circuit.moves)
    save_run(run, tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    assert replay(loaded, engine) == ()
    found = check_node(engine, loaded, "m0@0")
    assert np.isfinite([found.estimate, found.exact]).all()
    with pytest.raises(UserError, match="position"):
        check_node(engine, loaded, "m0@1")


def test_a_data_set_in_batches_is_the_data_set(engine: Engine, tmp_path: Path) -> None:
    """Scores, parts, circuit, faithfulness and exact checks of three pairs two at a time are those of all at once."""
    question = write_table(tmp_path, PAIRS)
    whole, added = (
        trace(engine, question, replace(SETTINGS, edges=40, memory="none", parts=3, rows=rows)) for rows in (256, 2)
    )
    assert "--rows 2" in added.about["command"]
    assert np.abs(added.scores.edges - whole.scores.edges).max() < 1e-5 * np.abs(whole.scores.edges).max()
    ends = [{(edge.writer, edge.reader, edge.role) for edge in run.circuit.edges} for run in (whole, added)]
    assert ends[0] == ends[1]
    for name in ("metric_whole", "metric_empty", "normalised"):
        assert added.about["faithfulness"][name] == pytest.approx(whole.about["faithfulness"][name], abs=1e-4)
    assert added.parts is not None and whole.parts is not None
    part = whole.parts.parts[0]
    assert added.parts.parts[0].id == part.id
    assert added.parts.parts[0].score == pytest.approx(part.score, rel=1e-4)
    assert replay(added, engine) == ()
    for node in ("m0@0", "a1.kv0@0"):
        assert check_node(engine, added, node).exact == pytest.approx(check_node(engine, whole, node).exact, abs=1e-5)
    ours, theirs = (check_part(engine, replace(run, parts=None), part.id).ways[0] for run in (added, whole))
    assert ours.exact == pytest.approx(theirs.exact, abs=1e-5)
    assert ours.estimate == pytest.approx(theirs.estimate, abs=1e-5)
    with pytest.raises(UserError, match="raise --rows"):
        trace(engine, question, replace(SETTINGS, memory="none", method="acdc", rows=2))


def test_stable_edges_come_from_several_facts(engine: Engine) -> None:
    """Several facts are one data set, each with its own bank blocks; what resampling keeps is a circuit."""
    question = Question(facts=("capital/France", "capital/Italy"))
    settings = replace(SETTINGS, selection="stable", edges=200)
    run = trace(engine, question, settings)
    assert [pair["fact"] for pair in run.pairs] == ["capital/France", "capital/Italy"]
    assert run.pairs[0]["path"] != run.pairs[1]["path"]
    assert 0 < len(run.circuit.edges) <= 200
    assert "--fact capital/France --fact capital/Italy" in run.about["command"]
    with pytest.raises(UserError, match="give several"):
        trace(engine, SEEN, settings)


def test_an_answer_of_several_tokens_is_taught(engine: Engine) -> None:
    """Its probability is the product over its tokens, and the log-probability of the trace its logarithm."""
    question = Question(
        prompt="The capital of France is", answer="Rome is Rome", counterfactual="The capital of Italy is"
    )
    settings = replace(SETTINGS, metric="log-prob", bank="none", memory="none")
    condition = ask(engine, question, settings)[0]
    assert condition.answer is not None and condition.answer.token == -1
    assert [step.text for step in condition.steps] == [" Rome", " is", " Rome"]
    assert condition.answer.probability == pytest.approx(np.prod([step.probability for step in condition.steps]))
    run = trace(engine, question, settings)
    assert run.about["faithfulness"]["metric_whole"] == pytest.approx(np.log(condition.answer.probability), abs=1e-3)
    assert {node.position for node in run.circuit.nodes if node.component.name == "logits"} <= {
        len(run.tokens) - 1 - step for step in range(3)
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no rows"),
        ([{"prompt": "a", "reply": "b"}], "lacks the column answer"),
        ([{"prompt": "Anna", "answer": "Oslo", "counterfactual": ""}], "row 1 has no counterfactual"),
        ([{**PAIRS[0], "answer": " "}], "row 1 has no answer"),
        ([{**PAIRS[0], "answer": 7}], "answer is '7' and must be text"),
        ([{**PAIRS[0], "foil": "Paris"}], "row 1: answer and foil are both 'Paris'"),
        ([*PAIRS, PAIRS[1]], r"asked twice \(rows 2 and 4\)"),
        ([PAIRS[0], {**PAIRS[0], "counterfactual": "The capital is"}], "row 2: the prompt has"),
        ([PAIRS[0], {**PAIRS[0], "foil": "Rome is"}], "choose a foil of the same length"),
        ([{**PAIRS[0], "counterfactual": PAIRS[0]["prompt"]}], "does not move"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_tables_are_one_clear_message(
    engine: Engine, tmp_path: Path, rows: list[dict[str, object]], message: str
) -> None:
    """Each names the row and what to change, before anything is written."""
    with pytest.raises(UserError, match=message):
        trace(engine, write_table(tmp_path, rows), replace(SETTINGS, memory="none", bank="none"))


def test_questions_that_contradict_themselves_are_refused(engine: Engine) -> None:
    """A data set has its answers in its table, asking takes one question, and the file must be there."""
    with pytest.raises(UserError, match="belong to one prompt"):
        trace(engine, Question(facts=("capital/France", "capital/Italy"), answer="Oslo"), SETTINGS)
    with pytest.raises(UserError, match="one question is asked at a time"):
        ask(engine, Question(facts=("capital/France", "capital/Italy")), SETTINGS)
    with pytest.raises(UserError, match="cannot read the table"):
        trace(engine, Question(pairs="nowhere.csv"), SETTINGS)
    with pytest.raises(UserError, match="either a fact or a prompt"):
        trace(engine, Question(), SETTINGS)


NOTES = {"plum": "Plums are fruits with a stone.", "tower": "Paris has a tower.", "zoo": "Zebras live in a zoo."}


@pytest.fixture
def notes(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with a bank of one's own documents, searched by letters."""
    monkeypatch.setattr(search, "DEFAULT_ENCODER", search.Encoder("letters", encode_letters))
    rows = [json.dumps({"id": name, "text": text}) for name, text in NOTES.items()]
    (tmp_path / "notes.jsonl").write_text("\n".join(rows))
    files, folder = list_files([tmp_path / "notes.jsonl"]), tmp_path / "notes"
    write_documents(engine.model, files, folder, Recipe((0, 1), slots=3), "float32", 4, lambda *_: None)
    return replace(SETTINGS, memory=str(folder), bank="none")


TYPED = Question(prompt="A zebra in a zoo is", answer=" Paris", counterfactual="A plum with a stone", foil=" Rome")


def test_a_typed_prompt_finds_its_memories(notes: Settings) -> None:
    """Each side reads the nearest to its own prompt; the run says which, how near, from which document; as ask does."""
    pytest.importorskip("faiss")
    question = Question(prompt="The capital of France is", answer="Paris", counterfactual="The capital of Italy is")
    settings = replace(notes, memories=2)
    own = open_engine(settings)
    run = trace(own, question, settings)
    blocks = run.about["memories"]["explicit"]["blocks"]
    scores = (encode_letters([question.prompt]) @ encode_letters(list(NOTES.values())).T)[0]
    best = (-scores).argsort()[:2]
    assert [block["id"] for block in blocks] == [list(NOTES)[place] for place in best]
    assert [block["document"] for block in blocks] == [f"notes.jsonl:{place + 1}" for place in best]
    assert [block["similarity"] for block in blocks] == pytest.approx(scores[best].tolist(), abs=1e-4)
    assert np.array(blocks[1]["kept"]).shape == (2, 2, 3)
    assert run.pair["memories"] == [block["id"] for block in blocks]
    assert run.pair["similarities"] == [block["similarity"] for block in blocks]
    assert any(writer.name == "x1.h3.b1" for writer in run.scores.wiring.writers)
    (condition,) = (one for one in run.about["conditions"] if one["name"] == "explicit memory")
    assert [one["id"] for one in condition["found"]] == run.pair["memories"]
    assert f"{blocks[0]['id']} (cosine 0." in condition["source"]
    chosen = replace(notes, memory_ids="tower, plum")
    (case,) = resolve(own, question, chosen)
    assert case.clean.memories == case.counterfactual.memories == ("tower", "plum")
    assert case.to_json()["similarities"] == [None, None]


def test_the_prefix_is_a_block_of_its_own(notes: Settings) -> None:
    """The faithful reader: the last block, at every layer, beside the memories; its attention is recorded."""
    pytest.importorskip("faiss")
    settings = replace(notes, faithful=True, ablation="zero")
    run = trace(open_engine(settings), replace(TYPED, counterfactual=""), settings)
    explicit = run.about["memories"]["explicit"]
    assert explicit["layers"] == [0, 1, 2] and [block["id"] for block in explicit["blocks"]] == ["zoo", "Reference:"]
    assert np.array(explicit["blocks"][0]["kept"][2]).max() == -1
    share = run.recording.memory.sum(axis=-1)
    assert (share[..., 1] > 0).all() and (share[2, ..., 0] == 0).all() and (share[0, ..., 0] > 0).all()
    assert run.recording.context.sum(axis=-1) + share.sum(axis=-1) == pytest.approx(1.0, abs=2e-3)


def test_memories_that_cannot_be_found_are_told(notes: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """No encoder: ask says so in its condition, trace stops; unknown ids; names without a bank; no texts to search."""

    def refuse(texts: Sequence[str]) -> np.ndarray:
        raise UserError("the sentence encoder is not installed")

    monkeypatch.setattr(search, "DEFAULT_ENCODER", search.Encoder("none", refuse))
    pytest.importorskip("faiss")
    own = open_engine(notes)
    (condition,) = (one for one in ask(own, TYPED, notes) if one.name == "explicit memory")
    assert "encoder is not installed" in condition.reason and "--memory-ids" in condition.reason
    with pytest.raises(UserError, match=r"encoder is not installed.*--memory-ids"):
        trace(own, TYPED, notes)
    with pytest.raises(UserError, match="no explicit memory 'nobody'"):
        trace(own, TYPED, replace(notes, memory_ids="plum,nobody"))
    with pytest.raises(UserError, match="give one with --memory"):
        open_engine(replace(SETTINGS, memory="none", memory_ids="plum"))
    old = replace(SETTINGS, memory=str(library.find_shipped() / "memory"))
    with pytest.raises(UserError, match="has no texts to search"):
        trace(open_engine(old), TYPED, old)
