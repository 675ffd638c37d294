"""What fuzzing has found in command lines: each ended in a traceback and is now one line with exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.errors import UserError
from probes.facts import build_fact
from tests.fuzz.commands import list_options
from tests.fuzz.tables import FACT
from workbench import cli, pipeline
from workbench.commands.parsing import COMMANDS, parse_options
from workbench.commands.traces import require_own
from workbench.engine import Engine
from workbench.settings import Question
from workbench.storage import name_work
from workbench.training.checkpoints import open_workplace

SEEDED = [
    command.name
    for command in COMMANDS
    if any("--seed" in action.option_strings for action in list_options(command))
]  # fmt: skip


def refuse(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command line is refused with, on one line."""
    assert cli.main(words) == 2
    found = capsys.readouterr()
    assert not found.out and found.err.count("\n") == 1 and len(found.err) < 1500
    return found.err


@pytest.mark.parametrize("seed", ["-1", "2147483648", "9" * 400])
def test_seeds_that_nothing_draws_by(capsys: pytest.CaptureFixture[str], seed: str) -> None:
    """A command's example with such a seed is refused before anything is opened."""
    assert {"trace", "memory compress", "bank train", "demo evaluate", "heads"} <= {*SEEDED}
    for name in SEEDED:
        required = {"memory compress": ["BANK", "--out", "a"], "memory fidelity": ["BANK"]}.get(name, [])
        told = refuse(capsys, *name.split(), *required, f"--seed={seed}")
        assert "--seed is" in told or "required" in told
    assert parse_options(["heads", "--seed", "2147483647"]).seed == 2**31 - 1


ASKED = ("--prompt", "a", "--answer", " b", "--counterfactual", "c")


@pytest.mark.parametrize(
    "words", [("trace", *ASKED, "--out"), ("trace", *ASKED, "--model"), ("show",), ("memory", "list")], ids=" ".join
)
def test_names_that_no_file_can_have(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    long = "x" * 5000
    told = refuse(capsys, *words, long)
    assert "as long as" in told or "name too long" in told


@pytest.mark.parametrize("place", [".", "/", "..", "a/.."])
def test_a_place_without_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="no name of its own"):
        name_work(Path(place))
    with pytest.raises(UserError, match="no name of its own"), open_workplace(Path(place), {}, resume=True):
        pass
    assert name_work(Path("a/b")) == Path("a/b.part")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


class FactsAlone(Engine):
    """An engine with two facts and no model; one of them has an explicit memory where there are `memories`."""

    def __init__(self, memories: set[str] | None) -> None:
        rows = [FACT | {"id": name, "document_id": f"about {name}"} for name in ("a", "b")]
        object.__setattr__(self, "facts", tuple(build_fact(row, {}) for row in rows))
        object.__setattr__(self, "memories", memories)


def test_own_memories_that_are_not_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--memory own --text auto` traced without any explicit memory, and said nothing."""
    engine = FactsAlone({"about b"})
    monkeypatch.setattr(pipeline, "open_engine", lambda settings, tick: engine)
    told = refuse(capsys, "trace", "--fact", "a", "--memory", "own", "--text", "auto")
    assert "--memory own attaches nothing here" in told and "'a'" in told
    told = refuse(capsys, "trace", "--prompt", "x", "--answer", " y", "--ablation", "zero", "--memory", "own")
    assert "--memory own attaches nothing here" in told
    asked = [Question(fact="a"), Question(fact="b")]
    require_own(engine, asked)
    with pytest.raises(UserError, match="any of the 2 questions"):
        require_own(FactsAlone(None), asked)
