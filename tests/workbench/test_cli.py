"""The command line: answers for people and machines, one clear line for what a person can mend, no traceback."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.errors import UserError
from workbench import cli, pipeline, replaying
from workbench.answers import Condition, Prediction
from workbench.commands import reference
from workbench.commands.parsing import COMMANDS, build_parser
from workbench.commands.questions import read_question, read_settings
from workbench.commands.terminal import clean_text, format_table, measure_width, shorten
from workbench.library import read_shipped_facts
from workbench.provenance import build_command
from workbench.runs import Run, load_run, save_run
from workbench.settings import METHODS, METRICS, Question, Settings
from workbench.settings import read_question as restore_question

ROOT = Path(__file__).parents[2]
PROMPT = ["--prompt", "The capital of Norland is", "--answer", " Oskarville"]
TRACED = [*PROMPT, "--counterfactual", "The capital of Sudland is"]


@pytest.fixture(autouse=True)
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs go to a folder of the test's own."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("MEMORY_CIRCUITS_RUNS", str(folder))
    return folder


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, run: Run) -> SimpleNamespace:
    """An engine that answers at once, and what it was asked."""
    seen = SimpleNamespace(opened=[], asked=[])

    def open_engine(settings: Any, tick: Any) -> SimpleNamespace:
        seen.opened.append(settings)
        tick("loading", 0, 1)
        return seen

    def trace(engine: Any, question: Any, settings: Any, tick: Any) -> Run:
        seen.asked.append(question)
        return run

    best = Prediction(" Oskarville", 17, 0.75)
    conditions = (
        Condition("parameters", "The capital of Norland is", (best,), best, source="\x1b[31mred"),
        Condition("text", "", reason="no document was named"),
    )
    check = pipeline.Check("m1@4", 0.5, 0.25, "logits", "eap", "counterfactual")
    monkeypatch.setattr(pipeline, "open_engine", open_engine)
    monkeypatch.setattr(pipeline, "trace", trace)
    monkeypatch.setattr(pipeline, "ask", lambda *given: conditions)
    monkeypatch.setattr(replaying, "replay", lambda *given: ())
    monkeypatch.setattr(pipeline, "check_node", lambda *given: check)
    return seen


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The document of a command that succeeds, which is all that it prints."""
    assert cli.main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def fail(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that fails for a reason that a person can mend."""
    assert cli.main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err


def test_trace_saves_a_run_and_prints_its_summary(
    engine: SimpleNamespace, capsys: pytest.CaptureFixture[str], runs_folder: Path, run: Run
) -> None:
    assert cli.main(["trace", *TRACED, "--method", "eap-ig", "--edges", "12"]) == 0
    out, err = capsys.readouterr()
    (folder,) = runs_folder.iterdir()
    assert folder.name.startswith("the-capital-of-norland-is-")
    assert load_run(folder).circuit == run.circuit
    assert err == ""
    for wanted in (
        str(folder),
        "“ Oskarville”, “ Tannstad”",
        "0.870",
        "random circuits",
        "in logits",
        "30 edges of",
        "of d-1, d-2",
    ):
        assert wanted in out
    assert (engine.opened[0].method, engine.opened[0].edges) == ("eap-ig", 12)


def test_trace_for_machines(engine: SimpleNamespace, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    document = run_json(capsys, "trace", *TRACED, "--out", str(tmp_path / "mine"))
    assert document["run"] == str(tmp_path / "mine")
    assert document["unit"] == "logits"
    assert document["faithfulness"]["random"]["n"] == 5
    assert len(document["nodes"]) == 10


def test_trace_refuses_a_folder_that_is_taken_before_it_works(
    engine: SimpleNamespace, capsys: pytest.CaptureFixture[str], run_folder: Path
) -> None:
    assert "holds a run already" in fail(capsys, "trace", *TRACED, "--out", str(run_folder))
    assert "exists already" in fail(capsys, "trace", *TRACED, "--out", str(run_folder.parent))
    assert engine.opened == []


def test_equal_questions_get_equal_names_and_others_do_not(
    engine: SimpleNamespace, capsys: pytest.CaptureFixture[str], runs_folder: Path
) -> None:
    assert cli.main(["trace", *TRACED]) == 0
    capsys.readouterr()
    assert "holds a run already" in fail(capsys, "trace", *TRACED)
    assert cli.main(["trace", *TRACED, "--seed", "1"]) == 0
    assert len(list(runs_folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], "COMMAND"),
        (["nonsense"], "'facts'"),
        (["demo"], "COMMAND"),
        (["trace"], "either a fact or a prompt"),
        (["trace", "--fact", "f", "--prompt", "p"], "either a fact or a prompt"),
        (["trace", *TRACED, "--method", "guess"], ", ".join(map(repr, METHODS))),
        (["trace", *TRACED, "--ablation", "guess"], "'counterfactual', 'mean', 'zero'"),
        (["trace", *TRACED, "--metric", "guess"], "'logit-diff', 'log-prob', 'prob', 'kl'"),
        (["trace", *TRACED, "--edges", "many"], "--edges"),
        (["trace", *TRACED, "--edges", "0"], "from 1 to"),
        (["trace", *TRACED, "--meth", "eap"], "--meth"),
        (["show", "nowhere"], "`memory-circuits runs`"),
        (["show", "x\x1b[2J\ny"], "\\x1b"),
        (["runs", "nowhere"], "no folder"),
        (["replay", "nowhere"], "no run"),
        (["check", "nowhere", "m1@4"], "no run"),
        (["export", "nowhere", "--to", "svg", "--out", "x"], "no run"),
        (["export", "nowhere", "--to", "docx", "--out", "x"], "'json', 'svg', 'pdf', 'png'"),
        (["export", "nowhere", "--to", "svg"], "--out"),
        (["app", "--port", "0"], "from 1 to 65535"),
        (["app", "--port", "x"], "--port"),
        (["app", "--address", "256.1.1.1"], "cannot listen on 256.1.1.1"),
        (["demo", "train", "--out", "x", "--config", "nowhere.toml"], "no file"),
        (["demo", "evaluate", "nowhere"], "no folder"),
    ],
    ids=lambda value: " ".join(value)[:40].encode("unicode_escape").decode() if isinstance(value, list) else "",
)
def test_mistakes_get_one_line(arguments: list[str], wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = fail(capsys, *arguments)
    assert line.startswith("memory-circuits: ")
    assert wanted in line
    assert wanted in json.loads(fail(capsys, *arguments, "--json"))["error"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_has_an_example_and_the_example_parses(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.name.split(), "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert f"example:\n  {command.example}" in out
    assert "--json" in out
    program, *arguments = shlex.split(command.example)
    assert program == "memory-circuits"
    assert build_parser().parse_args(arguments).command is command


texts = st.text(min_size=1, max_size=12)
# No Settings yet: whoever checks a tuple draws from it, which Hypothesis allows outside strategies only.
choices = st.fixed_dictionaries(
    {
        "model": texts,
        "bank": texts,
        "text": texts,
        "method": st.sampled_from(sorted(METHODS)),
        # Parts have no gradient under KL, which is refused.
        "metric": st.sampled_from(sorted(METRICS.keys() - {"kl"})),
        "edges": st.integers(1, 999),
        "seed": st.integers(0, 9),
        "parts": st.integers(1, 9),
        "into": st.lists(texts, max_size=2).map(tuple),
        "device_map": st.none() | texts,
        "trust_remote_code": st.booleans(),
    }
)


questions = st.one_of(
    st.fixed_dictionaries({"prompt": texts, "answer": texts, "foil": texts}),
    st.fixed_dictionaries({"fact": texts, "foil": texts}),
    st.fixed_dictionaries({"facts": st.lists(texts, min_size=2, max_size=4).map(tuple)}),
    st.fixed_dictionaries({"pairs": texts}),
)


@hypothesis.settings(deadline=None)
@given(asked=questions, chosen=choices)
def test_the_command_that_a_run_records_asks_the_same(asked: dict[str, Any], chosen: dict[str, Any]) -> None:
    question, settings = Question(**asked), Settings(**chosen)
    program, *arguments = shlex.split(build_command(question, settings))
    assert program == "memory-circuits"
    options = build_parser().parse_args(arguments)
    assert read_question(options) == question == restore_question(json.loads(json.dumps(question.to_json())))
    assert read_settings(options) == settings


def test_ask_shows_every_condition(engine: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ask", *PROMPT]) == 0
    out = capsys.readouterr().out
    assert "“ Oskarville” 0.750" in out
    assert "not available: no document was named" in out
    assert "\\x1b[31mred" in out
    assert "\x1b" not in out
    document = run_json(capsys, "ask", *PROMPT)
    assert [found["name"] for found in document["conditions"]] == ["parameters", "text"]


def test_ask_fails_when_no_condition_could_be_asked(
    engine: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = {"parameters": "9 tokens and the model reads 8", "bank": "no bank", "text": "no bank"}
    conditions = [Condition(name, "", reason=reason) for name, reason in reasons.items()]
    monkeypatch.setattr(pipeline, "ask", lambda *given: conditions)
    line = fail(capsys, "ask", *PROMPT)
    assert "in no condition: 9 tokens and the model reads 8; no bank" in line


def test_show_and_runs(run_folder: Path, capsys: pytest.CaptureFixture[str], run: Run) -> None:
    assert cli.main(["show", str(run_folder), "--edges", "3"]) == 0
    out = capsys.readouterr().out
    assert run.circuit.edges[2].writer in out
    assert "one of" not in out
    assert run_json(capsys, "show", run_folder.name)["run"] == str(run_folder)
    assert cli.main(["runs"]) == 0
    assert run_folder.name in capsys.readouterr().out
    (entry,) = run_json(capsys, "runs", str(run_folder.parent))["runs"]
    assert (entry["edges"], entry["unit"], entry["answer"]) == (30, "logits", " Oskarville")


def test_runs_are_listed_by_name(run_folder: Path, capsys: pytest.CaptureFixture[str], run: Run) -> None:
    save_run(run, run_folder.parent / "zebra")
    save_run(run, run_folder.parent / "Zurich")
    listed = [Path(entry["run"]).name for entry in run_json(capsys, "runs")["runs"]]
    assert listed == sorted(listed) and {"zebra", "Zurich", run_folder.name} == set(listed)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["pairs"], []),
        (["pairs", 0, "clean_tokens"], ["one"]),
        (["faithfulness"], None),
        (["faithfulness", "random"], {}),
        (["memories"], []),
        (["circuit", "nodes", 0, "id"], "nonsense"),
        (["circuit", "plan"], {"layers": 1}),
    ],
    ids=str,
)
def test_an_edited_run_is_one_line(
    keys: list[Any], value: Any, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_folder / "run.json"
    about = json.loads(path.read_text())
    place = about
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(about))
    fail(capsys, "show", str(run_folder))
    fail(capsys, "export", str(run_folder), "--to", "csv", "--out", str(run_folder / "x"))
    assert len(run_json(capsys, "runs")["runs"]) == 1
    assert cli.main(["runs"]) == 0


def test_no_runs_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs"]) == 0
    assert "`memory-circuits trace` makes one" in capsys.readouterr().out


def test_show_makes_hostile_text_harmless(
    build_run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from workbench.runs import save_run

    save_run(build_run(tokens=["\x1b]0;owned\x07", "\u202eevil", "\r\n", "\x9b2J", "a"]), tmp_path / "hostile")
    assert cli.main(["show", str(tmp_path / "hostile")]) == 0
    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\x07\u202e\r\x9b")


@pytest.mark.parametrize("name", ["json", "graphml", "svg", "csv"])
def test_export_writes_a_file(name: str, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / f"circuit.{name}"
    document = run_json(capsys, "export", str(run_folder), "--to", name, "--out", str(out))
    assert document["bytes"] == out.stat().st_size > 500
    assert document["drops"]


def test_export_chooses_a_table(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for table, column in (("edges", "writer"), ("nodes", "node")):
        out = tmp_path / f"{table}.csv"
        assert cli.main(["export", str(run_folder), "--to", "csv", "--table", table, "--out", str(out)]) == 0
        assert out.read_text().startswith(f"{column},")
    assert "cannot write" in capsys.readouterr().out + fail(
        capsys, "export", str(run_folder), "--to", "csv", "--out", str(tmp_path)
    )


def test_replay_says_what_moved(
    engine: SimpleNamespace,
    run_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run_json(capsys, "replay", str(run_folder)) == {
        "differences": [],
        "identical": True,
        "run": str(run_folder),
    }
    row = replaying.Difference("metric_whole", 4.5, 4.75, 0.25)
    text = replaying.Difference("versions.torch", "1.0", "2.0", None)
    monkeypatch.setattr(replaying, "replay", lambda *given: (row, text))
    assert cli.main(["replay", str(run_folder)]) == 1
    assert "metric_whole" in capsys.readouterr().out
    assert cli.main(["replay", str(run_folder), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["differences"][0]["difference"] == 0.25


def test_check_puts_estimate_beside_exact(
    engine: SimpleNamespace, run_folder: Path, capsys: pytest.CaptureFixture[str], run: Run
) -> None:
    node = run.circuit.nodes[0].id
    assert cli.main(["check", str(run_folder), node]) == 0
    out = capsys.readouterr().out
    assert "0.5 logits" in out
    assert "0.25 logits" in out
    assert run_json(capsys, "check", str(run_folder), node)["exact"] == 0.25
    assert "not a node id" in fail(capsys, "check", str(run_folder), "m1")
    assert "its strongest nodes are" in fail(capsys, "check", str(run_folder), "m1@99")


def test_interruption_leaves_nothing(
    engine: SimpleNamespace,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    runs_folder: Path,
) -> None:
    def interrupt(*given: Any) -> Run:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "trace", interrupt)
    assert cli.main(["trace", *TRACED]) == 130
    assert "stopped" in capsys.readouterr().err
    assert not runs_folder.exists()


def test_a_mistake_of_ours_surfaces(engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_inside(*given: Any) -> Run:
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "trace", fail_inside)
    with pytest.raises(ZeroDivisionError):
        cli.main(["trace", *TRACED])


def test_an_error_of_the_engine_is_one_line(
    engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*given: Any) -> Run:
        raise UserError("no such\nmodel \x1b[31m")

    monkeypatch.setattr(pipeline, "open_engine", refuse)
    assert "no such\\nmodel \\x1b[31m" in fail(capsys, "trace", *TRACED)


def test_app_starts_the_server_and_passes_on_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    called = []
    monkeypatch.setattr(
        "workbench.commands.application.build_command", lambda port, address, hosts: ["serve", address, port]
    )
    monkeypatch.setattr("workbench.commands.application.run_server", lambda command: called.append(command) or 3)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        probe.listen()
        assert f"cannot listen on 127.0.0.1:{port}" in fail(capsys, "app", "--port", port)
    assert cli.main(["app", "--port", port, "--json"]) == 3
    assert called == [["serve", "127.0.0.1", int(port)]]
    assert json.loads(capsys.readouterr().out)["url"] == f"http://127.0.0.1:{port}"


def run_process(*arguments: str, **given: Any) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, "-m", "workbench.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        **given,
    )


def test_a_reader_that_goes_away_is_no_error(run_folder: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    for arguments in (["show", str(run_folder)], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "workbench.cli", *arguments],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )
        # argparse swallows the error itself when Python runs unbuffered.
        assert done.returncode == 141 or "--help" in arguments
        assert done.stderr == ""
    os.close(write)


def test_an_encoding_without_the_character_is_no_error(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = run_process("show", str(run_folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u201c Oskarville\\u201d" in done.stdout


def test_doctor_reports_and_judges(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench import doctor

    code = cli.main(["doctor", "--json"])
    document = json.loads(capsys.readouterr().out)
    states = {finding["name"]: finding["state"] for finding in document["findings"]}
    assert states["python"] == "ok"
    assert (code == 0) == document["ok"] == ("broken" not in states.values())
    assert {"chromium", "latex", "graphviz", "encoder", "devices"} <= set(states)
    broken = doctor.Finding("torch", "broken", "not installed", "pip install torch")
    monkeypatch.setattr("workbench.commands.health.examine", lambda: [broken])
    assert cli.main(["doctor"]) == 1
    assert "✗ torch" in capsys.readouterr().out


def test_the_reference_is_what_the_commands_say() -> None:
    assert (ROOT / "docs" / "commands.md").read_text() == reference.write_reference(), "run `make docs`"
    readme = (ROOT / "README.md").read_text()
    assert reference.place_tree(readme, ROOT) == readme, "run `make docs`"


def test_the_commands_of_the_readme_are_commands() -> None:
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("memory-circuits ")]
    assert len(lines) >= 8
    known = {fact.id for fact in read_shipped_facts()}
    for line in lines:
        options = build_parser().parse_args(shlex.split(line, comments=True)[1:])
        assert known.issuperset(getattr(options, "fact", []))


def test_cleaning_shows_what_it_disarms() -> None:
    assert clean_text("plain – ünï 日本") == "plain – ünï 日本"
    assert clean_text("a\x1b[31m\u202e\ud800\x00\u2028\u200d") == "a\\x1b[31m\\u202e\\ud800\\x00\\u2028\\u200d"
    assert shorten("abcdef", 4) == "abc…"


def test_tables_are_aligned_by_width() -> None:
    lines = format_table(("a", "n"), [("日本", 1.5), ("x", 22.25)]).split("\n")
    assert len({measure_width(line) for line in lines}) == 1
    assert lines[2].endswith("  1.5")
