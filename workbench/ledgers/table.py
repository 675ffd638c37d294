"""A ledger at rest: rows that add up to the answer's margin, as a file beside a run or alone.

    margin = anchor + held attention + sum over formats of (parts listed + other parts + residual)

`share` is what a row adds to the margin, in the metric's unit; positive helps the answer. A format also has what it
brings `alone` (to the anchor) and `last` (to all others), which need not add up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.strict_json import dump_json, parse_json
from workbench.json_values import are_texts, is_number, require, require_fields
from workbench.storage import read_bytes, write_file

FORMAT, VERSION = "memory-circuits/ledger", 1
METHOD = (
    "Shapley value of the format over all combinations, each run exactly; parts by path attribution (trapezoid of the "
    "gradients with and without the format), the anchor's by their writes into the logits"
)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a format: a slot as a head reads it, a bank unit, a head's read of a text position, an anchor's part.

    `token` is what stands there (empty where nothing does). `effect` is, for a part of the anchor, the first-order
    drop of the margin when it counts as zero everywhere; effects overlap and do not add up.
    """

    component: str
    share: float
    token: str = ""
    effect: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One format with its parts, strongest first. `others` parts that are not listed share `rest`.

    `kind` is `anchor`, `explicit`, `bank` or `text`; `label` says which memory, cluster or text it is. `residual` is
    what of the share no part has. `tokens` and `heads` are sums over all parts of an explicit memory or text by kept
    token and by head, strongest first.
    """

    name: str
    kind: str
    label: str
    share: float
    alone: float
    last: float
    parts: tuple[Part, ...]
    others: int
    rest: float
    residual: float
    tokens: tuple[tuple[str, float], ...] = ()
    heads: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Interaction:
    """Shapley interaction of two formats: below 0 redundancy, above 0 synergy."""

    first: str
    second: str
    value: float

    @property
    def word(self) -> str:
        """What it is called."""
        return "redundancy" if self.value < 0 else "synergy"


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger of one answer. `combinations` are the margins of all combinations, by the names of what is on.

    `held` is what explicit memories cost the margin by the attention that they keep when only their contribution is
    removed (0 where they leave the softmax). `known`: with everything on the model says the answer; `said` is the
    token that it says instead, else empty.
    """

    fact: str
    prompt: str
    answer: str
    foil: str
    metric: str
    unit: str
    removal: str
    margin: float
    held: float
    entries: tuple[Entry, ...]
    interactions: tuple[Interaction, ...]
    combinations: tuple[tuple[tuple[str, ...], float], ...]
    known: bool
    said: str = ""
    method: str = field(default=METHOD)

    @property
    def total(self) -> float:
        """Sum of all rows; the margin but for the last digit of a double."""
        rows = [self.held]
        for entry in self.entries:
            rows += [entry.rest, entry.residual, *(part.share for part in entry.parts)]
        return math.fsum(rows)

    def find(self, name: str) -> Entry:
        """Entry of a name. Raises UserError when there is none."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise UserError(f"the ledger has no entry {name[:80]!r}: {', '.join(one.name for one in self.entries)}")

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from workbench.formats.notebook import show_ledger

        return show_ledger(self)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        value = asdict(self)
        value["combinations"] = [{"on": list(on), "margin": margin} for on, margin in self.combinations]
        for entry, own in zip(value["entries"], self.entries, strict=True):
            entry["tokens"], entry["heads"] = ([list(pair) for pair in pairs] for pairs in (own.tokens, own.heads))
        for one, own_interaction in zip(value["interactions"], self.interactions, strict=True):
            one["kind"] = own_interaction.word
        plain: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
        return plain


def list_rows(ledger: Ledger) -> list[dict[str, Any]]:
    """The ledger as flat rows: formats (with `alone` and `last`), components, other parts, residuals, held attention.

    Rows that are not formats add up to the margin.
    """
    rows = []
    for entry in ledger.entries:
        shared = {"format": entry.name, "label": entry.label}
        rows.append({"row": "format", **shared, "share": entry.share, "alone": entry.alone, "last": entry.last})
        rows += [
            {
                "row": "component",
                **shared,
                "component": part.component,
                "token": part.token,
                "share": part.share,
                "effect": part.effect,
            }
            for part in entry.parts
        ]
        rows.append({"row": "other parts", **shared, "share": entry.rest, "count": entry.others})
        rows.append({"row": "residual", **shared, "share": entry.residual})
    rows.append({"row": "held attention", "format": "", "label": "", "share": ledger.held})
    return rows


def save_ledgers(ledgers: Sequence[Ledger], about: dict[str, Any], path: Path) -> None:
    """Write ledgers with what they come from (model, settings, versions) as one JSON file, whole or not at all."""
    document = {"format": FORMAT, "version": VERSION, **about, "ledgers": [ledger.to_json() for ledger in ledgers]}
    write_file(path, dump_json(document, indent=1, sort_keys=True) + b"\n")


def load_document(path: Path) -> tuple[dict[str, Any], tuple[Ledger, ...]]:
    """What a file says of its ledgers (`about` of `save_ledgers`), and the ledgers.

    Raises UserError for one that is no ledger, damaged, or of a version to come.
    """
    try:
        document = parse_json(read_bytes(path))
        if document["format"] != FORMAT or int(document["version"]) > VERSION:
            raise UserError(f"{path} is not a ledger of this release (version {VERSION})")
        ledgers = tuple(decode_ledger(value) for value in document["ledgers"])
        about = {name: value for name, value in document.items() if name not in ("format", "version", "ledgers")}
    except (ValueError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise UserError(f"{path} is not a ledger: {type(error).__name__}: {error}") from None
    return about, ledgers


def load_ledgers(path: Path) -> tuple[Ledger, ...]:
    """Ledgers of a file. Raises UserError as `load_document`."""
    return load_document(path)[1]


TEXTS = ("fact", "prompt", "answer", "foil", "metric", "unit", "removal", "said", "method")
SHARES = ("share", "alone", "last", "others", "rest", "residual")


def decode_ledger(value: dict[str, Any]) -> Ledger:
    """Ledger of its JSON object. Raises KeyError, TypeError or ValueError on a malformed one."""
    require_fields({"said": "", "method": METHOD, **value}, "ledger", TEXTS, ("margin", "held"))
    require(isinstance(value["known"], bool), "ledger.known", "true or false")
    for entry in value["entries"]:
        require_fields(entry, "entry", ("name", "kind", "label"), SHARES)
        for part in entry["parts"]:
            require_fields(part, "part", ("component",), ("share",))
            require(isinstance(part.get("token", ""), str), "part.token", "text")
            require(part.get("effect") is None or is_number(part["effect"]), "part.effect", "a finite number")
    for one in value["interactions"]:
        require_fields(one, "interaction", ("first", "second"), ("value",))
    for one in value["combinations"]:
        require(are_texts(one["on"]) and is_number(one["margin"]), "a combination", "names and a finite number")
    entries = []
    for entry in value["entries"]:
        sums = {name: tuple((str(word), float(share)) for word, share in entry[name]) for name in ("tokens", "heads")}
        entries.append(Entry(**{**entry, **sums, "parts": tuple(Part(**part) for part in entry["parts"])}))
    pairs = tuple(Interaction(one["first"], one["second"], one["value"]) for one in value["interactions"])
    combinations = tuple((tuple(one["on"]), float(one["margin"])) for one in value["combinations"])
    given = {"entries": tuple(entries), "interactions": pairs, "combinations": combinations}
    return Ledger(**{**value, **given})
