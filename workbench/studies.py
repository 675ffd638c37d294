"""Studies: what was found out about the memories of one question, as files that reopen without a model.

A study is a ledger file (`workbench/ledgers/table.py`) with more beside its ledgers: the texts that were read and by
which heads, the cluster path with its siblings, and answers with parts of the memories blocked. The ledger that
`memory-circuits ledger --run RUN` keeps in a run's folder opens as a study too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.facts import Fact
from workbench.answers import Condition, Found, Prediction
from workbench.json_values import is_number, require, require_fields
from workbench.ledgers.table import Ledger, load_document, save_ledgers

FOLDER = "studies"
RUN = "run:"
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Reference:
    """A text that the answer could be read from: that of an explicit memory, or the one before the prompt.

    `entry` is its row of the ledger. `attention[layer][head][slot]` is what each head gives it where the answer's first
    token is predicted, as probabilities of one softmax over memories and context; of a text in the prompt a slot is a
    token. `kept[layer][kv_head][slot]` is the token that a slot of a memory keeps (-1: none), empty for a text;
    `layers` names the layers of both; `group` heads share a key-value head.
    """

    entry: str
    id: str
    tokens: tuple[str, ...]
    layers: tuple[int, ...]
    group: int
    kept: tuple[tuple[tuple[int, ...], ...], ...]
    attention: tuple[tuple[tuple[float, ...], ...], ...]


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a cluster path: its cluster, and trained facts in it and in each sibling, with examples."""

    level: int
    cluster: int
    siblings: tuple[tuple[int, int, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Study:
    """A study by its name; `about` is what its file says besides: model, settings, question, hashes, versions."""

    name: str
    about: dict[str, Any]
    ledgers: tuple[Ledger, ...]
    references: tuple[Reference, ...] = ()
    path: tuple[Level, ...] = ()
    answers: tuple[Condition, ...] = ()

    @property
    def kind(self) -> str:
        """`ledger`, `conflict` or `writing`."""
        return str(self.about.get("kind") or ("conflict" if self.about.get("conflict") else "ledger"))

    @property
    def title(self) -> str:
        """The prompt and the answer."""
        question = self.about.get("question") or {}
        prompt = self.ledgers[0].prompt if self.ledgers else str(question.get("prompt") or question.get("fact") or "")
        answer = self.ledgers[0].answer if self.ledgers else str(question.get("answer") or "")
        return f"{prompt} → {answer.strip()}" if answer.strip() else prompt


def find_studies(runs: Path) -> Path:
    """Folder of studies: inside that of the runs, where no run is called so."""
    return runs / FOLDER


def list_studies(runs: Path) -> list[str]:
    """Names of all studies: saved ones, then `run:NAME` of each run that has a ledger."""
    folder = find_studies(runs)
    own = (
        sorted(path.stem for path in folder.glob("*.json") if not path.name.startswith(".")) if folder.is_dir() else []
    )
    beside = sorted(path.parent.name for path in runs.glob("*/ledger.json")) if runs.is_dir() else []
    return [*own, *(f"{RUN}{name}" for name in beside if not name.startswith("."))]


def find_study(name: str, runs: Path) -> Path:
    """File of a study that is listed. Raises UserError: what a link names is never taken for a path."""
    if name not in list_studies(runs):
        raise UserError(f"there is no saved study {name[:80]!r}: choose one of the list")
    if name.startswith(RUN):
        return runs / name.removeprefix(RUN) / "ledger.json"
    return find_studies(runs) / f"{name}.json"


def name_study(kind: str, words: str, taken: Sequence[str]) -> str:
    """A new study's name from what is asked, safe as a file and in a link, unlike those taken."""
    slug = "-".join(re.findall(r"[a-z0-9]+", words.lower()))[:48].strip("-") or "question"
    stem = f"{slug}.{kind}"
    name, count = stem, 2
    while name in taken:
        name, count = f"{stem}.{count}", count + 1
    return name


def save_study(study: Study, runs: Path) -> None:
    """Write or replace a study's file, whole or not at all."""
    more = {
        "references": [asdict(one) for one in study.references],
        "path": [asdict(level) for level in study.path],
        "answers": [one.to_json() for one in study.answers],
    }
    path = find_study(study.name, runs) if study.name.startswith(RUN) else find_studies(runs) / f"{study.name}.json"
    save_ledgers(study.ledgers, study.about | more, path)


def load_study(name: str, runs: Path) -> Study:
    """A study by its name. Raises UserError when there is none, or its file is damaged."""
    path = find_study(name, runs)
    about, ledgers = load_document(path)
    try:
        for key in ("question", "settings", "model"):
            require(isinstance(about.get(key), dict | None), key, "an object")
        return Study(
            name,
            {key: value for key, value in about.items() if key not in ("references", "path", "answers")},
            ledgers,
            tuple(map(decode_reference, about.get("references", ()))),
            tuple(map(decode_level, about.get("path", ()))),
            tuple(map(decode_condition, about.get("answers", ()))),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f"{path.name} is not a whole study ({type(error).__name__}): measure again") from None


def decode_reference(value: Mapping[str, Any]) -> Reference:
    """Reference of its JSON object. Raises KeyError, TypeError or ValueError on a malformed one."""
    kept = tuple(tuple(tuple(int(slot) for slot in head) for head in layer) for layer in value["kept"])
    attention = tuple(tuple(tuple(float(slot) for slot in head) for head in layer) for layer in value["attention"])
    tokens, layers = tuple(map(str, value["tokens"])), tuple(map(int, value["layers"]))
    group = int(value["group"])
    require(len(attention) == len(layers) and group > 0, "a reference's attention", "by layer and head")
    heads = [(len(own) + group - 1) // group for own in attention]
    require(not kept or [len(own) for own in kept] == heads, "what a reference keeps", "by layer and head")
    return Reference(str(value["entry"]), str(value["id"]), tokens, layers, group, kept, attention)


def decode_level(value: Mapping[str, Any]) -> Level:
    """Level of its JSON object. Raises as `decode_reference`."""
    siblings = tuple((int(own), int(facts), tuple(map(str, some))) for own, facts, some in value["siblings"])
    return Level(int(value["level"]), int(value["cluster"]), siblings)


def decode_condition(value: Mapping[str, Any]) -> Condition:
    """Answers of their JSON object. Raises as `decode_reference`."""
    answer = value.get("answer")
    require_fields(value, "answer", ("name", "prompt", "source", "reason"))
    for one in [*value["top"], *value["steps"], *([] if answer is None else [answer])]:
        require_fields(one, "answer", ("text",), ("token", "probability"))
    for one in value["found"]:
        require_fields(one, "found", ("id", "document", "text"))
        require(one["similarity"] is None or is_number(one["similarity"]), "found.similarity", "a finite number")
    return Condition(
        **{
            **value,
            "top": tuple(Prediction(**one) for one in value["top"]),
            "answer": None if answer is None else Prediction(**answer),
            "steps": tuple(Prediction(**one) for one in value["steps"]),
            "found": tuple(Found(**one) for one in value["found"]),
        }
    )


def describe_path(path: Sequence[int], branching: int, facts: Sequence[Fact]) -> tuple[Level, ...]:
    """Every level of a path with all siblings of its cluster and the trained facts that read each."""
    trained = [fact for fact in facts if fact.occurrences != 0 and len(fact.cluster_path) == len(path)]
    levels = []
    for place, cluster in enumerate(path):
        if cluster < 0:
            levels.append(Level(place + 1, cluster, ()))
            continue
        first = cluster // branching * branching
        siblings = []
        for own in range(first, first + branching):
            there = [fact for fact in trained if fact.cluster_path[place] == own]
            subjects = list(dict.fromkeys(fact.subject for fact in there))
            siblings.append((own, len(there), tuple(subjects[:EXAMPLES])))
        levels.append(Level(place + 1, cluster, tuple(siblings)))
    return tuple(levels)
