"""Parts of a run: which kinds can be scored for a question, and how kept ones stand in files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from circuits.graph import Component, Kind, Wiring, parse_component, split_node
from circuits.parts import PART_KINDS, KeptPart, KeptParts
from probes.errors import UserError
from workbench.json_values import are_texts, require

if TYPE_CHECKING:
    from workbench.cases import Case


def list_kinds(cases: Sequence[Case]) -> tuple[tuple[Kind, ...], tuple[str, ...]]:
    """Kinds of parts that mean the same in every case, and in words why the others are left out."""
    if len(cases) == 1:
        return tuple(PART_KINDS), ()
    gone = {Kind.HEAD: "attention edges: source and destination are positions of one prompt"}
    if len({case.clean.path for case in cases}) > 1:
        gone[Kind.BANK] = "units of bank blocks: the pairs read blocks of different clusters"
    if len({case.clean.memories for case in cases}) > 1:
        gone[Kind.EXPLICIT] = "memory slots: the pairs read different explicit memories"
    return tuple(kind for kind in PART_KINDS if kind not in gone), tuple(gone.values())


def encode_parts(kept: KeptParts) -> dict[str, Any]:
    """Kept parts as a JSON object."""
    about = {name: getattr(kept, name) for name in ("asked", "method", "ablation", "metric", "unit")}
    return {
        **about,
        "readers": list(kept.readers),
        "left_out": list(kept.left_out),
        "list": [
            {
                "id": part.id,
                "kind": PART_KINDS[part.component.kind],
                "reader": part.reader,
                **{name: getattr(part, name) for name in ("score", "contribution", "renormalised")},
            }
            for part in kept.parts
        ],
    }


def decode_parts(value: dict[str, Any] | None, wiring: Wiring) -> KeptParts | None:
    """Kept parts of a JSON object, None where a run has none.

    Raises UserError for one that the graph does not have, KeyError, TypeError or ValueError for a malformed object.
    """
    if value is None:
        return None
    words = {name: value[name] for name in ("method", "ablation", "metric", "unit")}
    require(are_texts([*words.values()]), "method, ablation, metric or unit of the parts", "text")
    parts = tuple(decode_part(part, wiring.plan.layers) for part in value["list"])
    writers, readers = set(wiring.writers), {"", *(reader.name for reader in wiring.readers)}
    for part in parts:
        if part.component.whole not in writers or part.component.kind not in PART_KINDS or part.reader not in readers:
            into = f" into {part.reader[:80]!r}" if part.reader else ""
            raise UserError(f"the part {part.id}{into} is none of this graph: the file was edited")
    return KeptParts(
        parts=parts,
        asked=int(value["asked"]),
        readers=tuple(value["readers"]),
        **words,
        left_out=tuple(value["left_out"]),
    )


def decode_part(value: dict[str, Any], layers: int) -> KeptPart:
    """One kept part of its JSON object."""
    component, position = read_part(value["id"], layers)
    other = {name: None if value[name] is None else float(value[name]) for name in ("contribution", "renormalised")}
    return KeptPart(component, position, str(value["reader"]), float(value["score"]), **other)


def is_part(node: str) -> bool:
    """Whether an id is that of a part, by its name alone."""
    name, _, _ = node.rpartition("@")
    try:
        return parse_component(name, 0).part >= 0
    except UserError:
        return False


def read_part(part: str, layers: int) -> tuple[Component, int]:
    """Component and position of a part's id such as `m3.u17@4`. Raises UserError when it is not one."""
    name, position = split_node(part)
    component = parse_component(name, layers)
    if component.part < 0:
        raise UserError(f"{part[:80]!r} is no part: write for example m3.u17@4, f3.l1.u5@4, x3.h1.b0.s4@7, a3.h1.p4@7")
    return component, position
