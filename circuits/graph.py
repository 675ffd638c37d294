"""Nodes and edges: which components write to the residual stream, which read it, and who can see whom.

A *writer* adds a vector to the residual stream at a position; a *reader* takes the stream in. An edge joins a writer
to a reader at one position, because the residual stream never crosses positions; attention does, inside a head, from
a key-value head at the source position to the heads that share it at the destination.

Names, used in files, links and commands (a position follows as `@7`):

    embed            token (and position) embedding          writer
    a3.h1            head 1 of layer 3, its read of the context   writer, reads `a3.h1.q`
    a3.kv0           key-value head 0 of layer 3             reads `a3.kv0.k` and `a3.kv0.v`
    x3.h1.b0         head 1 of layer 3 reading explicit-memory block 0   writer, reads `x3.h1.b0.q`
    m3               MLP of layer 3                          writer, reads `m3`
    m3.e2            expert 2 of a mixture, routing weight included   writer; the mixture reads `m3`
    f3.l1            bank block of level 2 at layer 3        writer, reads `f3.l1`
    k3.l1            bank block of learned key-values of level 2, at the attention of layer 3   writer, reads `k3.l1`
    logits           the output                              reads `logits`

LoRA blocks of a bank are no writers: they change projections, and are counted inside the head or MLP that projects.

Parts that a writer is made of, each with a direction of its own (`circuits/parts.py`); they are scored and ablated one
by one, and are no writers of the graph:

    m3.u17           unit 17 of the MLP of layer 3
    f3.l1.u5         unit 5 of a bank block
    x3.h1.b0.s4      slot 4 of explicit-memory block 0, as head 1 reads it
    a3.h1.p4         what head 1 brings from position 4: with the head's own position, an attention edge
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

import numpy as np
from jaxtyping import Bool

from probes.errors import UserError


class Kind(StrEnum):
    """What a component is; the value is the name shown to a person."""

    EMBEDDING = "embedding"
    HEAD = "head"
    KEY_VALUE = "key-value head"
    EXPLICIT = "explicit memory"
    LEARNED = "learned key-values"
    MLP = "MLP"
    BANK = "bank block"
    LOGITS = "logits"


# What stands before the number of a part; units where the kind is not listed.
_LETTERS = {Kind.EXPLICIT: "s", Kind.HEAD: "p"}


@dataclass(frozen=True, slots=True)
class Component:
    """One component without its position.

    `layer` is -1 for the embedding and the number of layers for the logits. `head` is the head (or key-value head),
    `block` the explicit-memory block, the bank level or the expert; -1 where the kind has none. `part` is a unit, slot
    or source position of it, or -1 for the whole.
    """

    kind: Kind
    layer: int
    head: int = -1
    block: int = -1
    part: int = -1

    @property
    def name(self) -> str:
        """Name as listed in the module's table."""
        if self.part >= 0:
            return f"{self.whole.name}.{_LETTERS.get(self.kind, 'u')}{self.part}"
        match self.kind:
            case Kind.EMBEDDING:
                return "embed"
            case Kind.HEAD:
                return f"a{self.layer}.h{self.head}"
            case Kind.KEY_VALUE:
                return f"a{self.layer}.kv{self.head}"
            case Kind.EXPLICIT:
                return f"x{self.layer}.h{self.head}.b{self.block}"
            case Kind.LEARNED:
                return f"k{self.layer}.l{self.block}"
            case Kind.MLP:
                return f"m{self.layer}" if self.block < 0 else f"m{self.layer}.e{self.block}"
            case Kind.BANK:
                return f"f{self.layer}.l{self.block}"
            case Kind.LOGITS:
                return "logits"

    @property
    def whole(self) -> Component:
        """The component that this is a part of; itself when it is no part."""
        return replace(self, part=-1)


@dataclass(frozen=True, slots=True)
class Reader:
    """One input of a component: `role` is `q`, `k`, `v`, or `in` where a component has a single input."""

    component: Component
    role: str = "in"

    @property
    def name(self) -> str:
        """Component's name, with the role where it has several inputs or reads by a query."""
        return self.component.name if self.role == "in" else f"{self.component.name}.{self.role}"


# Digits of a number in a name: more than any model needs, fewer than Python refuses to read.
_DIGITS = 9
_PATTERNS = {
    kind: re.compile(re.sub(r"<(\w+)>", rf"(?P<\1>[0-9]{{1,{_DIGITS}}})", pattern))
    for kind, pattern in {
        Kind.HEAD: r"a<layer>\.h<head>(\.p<part>)?",
        Kind.KEY_VALUE: r"a<layer>\.kv<head>",
        Kind.EXPLICIT: r"x<layer>\.h<head>\.b<block>(\.s<part>)?",
        Kind.LEARNED: r"k<layer>\.l<block>",
        Kind.MLP: r"m<layer>(\.e<block>)?(\.u<part>)?",
        Kind.BANK: r"f<layer>\.l<block>(\.u<part>)?",
    }.items()
}


def parse_component(name: str, layers: int) -> Component:
    """Component (or part) of a name without position; `layers` is the model's number of layers. Raises UserError."""
    if name == "embed":
        return Component(Kind.EMBEDDING, -1)
    if name == "logits":
        return Component(Kind.LOGITS, layers)
    for kind, pattern in _PATTERNS.items():
        if found := pattern.fullmatch(name):
            return Component(kind, **{key: int(text) for key, text in found.groupdict().items() if text is not None})
    raise UserError(
        f"unknown component {name[:80]!r}: use names such as embed, a3.h1, a3.kv0, x3.h1.b0, m3, f3.l1, k3.l1, logits, "
        "m3.e2, m3.u17, f3.l1.u5, x3.h1.b0.s4, a3.h1.p4"
    )


def split_node(node: str) -> tuple[str, int]:
    """Name and position of a node id such as `a3.h1@7`. Raises UserError."""
    name, separator, position = node.rpartition("@")
    if not name or not separator or not re.fullmatch(f"[0-9]{{1,{_DIGITS}}}", position):
        raise UserError(f"not a node id: {node[:80]!r}; write NAME@POSITION, for example a3.h1@7")
    return name, int(position)


@dataclass(frozen=True, slots=True)
class Plan:
    """What decides the graph: the model's counts and the memories that are attached.

    `parallel` models feed attention and MLP of a layer from the same stream. `explicit_layers` are the memory layers,
    `blocks` the explicit memories read at once, `bank_layers` the layers with FFN blocks of a bank, `levels` their
    levels; `learned_layers` and `learned` the same of blocks of learned key-values.
    `expert_layers` are the layers whose MLP is a mixture of `experts`: each expert writes, and the mixture has one
    reader, for its experts and the router that weighs them take in the same stream.
    """

    layers: int
    heads: int
    kv_heads: int
    parallel: bool = False
    explicit_layers: tuple[int, ...] = ()
    blocks: int = 0
    bank_layers: tuple[int, ...] = ()
    levels: int = 0
    expert_layers: tuple[int, ...] = ()
    experts: int = 0
    learned_layers: tuple[int, ...] = ()
    learned: int = 0

    @property
    def group(self) -> int:
        """Query heads that share one key-value head."""
        return self.heads // self.kv_heads


@dataclass(frozen=True, slots=True)
class Wiring:
    """Every writer and reader of a planned model and who can see whom; `visible[writer, reader]`."""

    plan: Plan
    writers: tuple[Component, ...]
    readers: tuple[Reader, ...]
    visible: Bool[np.ndarray, "writer reader"]

    def find_writer(self, name: str) -> int:
        """Index of a writer. Raises UserError when the model has no such writer."""
        for index, writer in enumerate(self.writers):
            if writer.name == name:
                return index
        raise UserError(f"{name[:80]!r} is not a writer of this model with these memories")

    def find_reader(self, name: str) -> int:
        """Index of a reader. Raises UserError when the model has no such reader."""
        for index, reader in enumerate(self.readers):
            if reader.name == name:
                return index
        raise UserError(f"{name[:80]!r} is not a reader of this model with these memories")

    def sees(self, writer: str, reader: str) -> bool:
        """Whether there is an edge between two names. Raises UserError when the model lacks one of them."""
        return bool(self.visible[self.find_writer(writer), self.find_reader(reader)])

    @property
    def edges(self) -> int:
        """Edges of the whole graph at one position."""
        return int(self.visible.sum())


def list_writers(plan: Plan) -> tuple[Component, ...]:
    """Writers in the order in which they write: embedding, then per layer heads, memory reads, learned key-values,
    MLP, bank blocks.
    """
    writers = [Component(Kind.EMBEDDING, -1)]
    for layer in range(plan.layers):
        writers += [Component(Kind.HEAD, layer, head) for head in range(plan.heads)]
        if layer in plan.explicit_layers:
            writers += [
                Component(Kind.EXPLICIT, layer, head, block)
                for head in range(plan.heads)
                for block in range(plan.blocks)
            ]
        if layer in plan.learned_layers:
            writers += [Component(Kind.LEARNED, layer, block=level) for level in range(plan.learned)]
        if layer in plan.expert_layers:
            writers += [Component(Kind.MLP, layer, block=expert) for expert in range(plan.experts)]
        else:
            writers.append(Component(Kind.MLP, layer))
        if layer in plan.bank_layers:
            writers += [Component(Kind.BANK, layer, block=level) for level in range(plan.levels)]
    return tuple(writers)


def list_readers(plan: Plan) -> tuple[Reader, ...]:
    """Readers in the order in which they read: per layer queries, memory queries, learned key-values' queries, keys,
    values, MLP, bank; logits.
    """
    readers: list[Reader] = []
    for layer in range(plan.layers):
        readers += [Reader(Component(Kind.HEAD, layer, head), "q") for head in range(plan.heads)]
        if layer in plan.explicit_layers:
            readers += [
                Reader(Component(Kind.EXPLICIT, layer, head, block), "q")
                for head in range(plan.heads)
                for block in range(plan.blocks)
            ]
        if layer in plan.learned_layers:
            readers += [Reader(Component(Kind.LEARNED, layer, block=level)) for level in range(plan.learned)]
        for role in ("k", "v"):
            readers += [Reader(Component(Kind.KEY_VALUE, layer, head), role) for head in range(plan.kv_heads)]
        readers.append(Reader(Component(Kind.MLP, layer)))
        if layer in plan.bank_layers:
            readers += [Reader(Component(Kind.BANK, layer, block=level)) for level in range(plan.levels)]
    readers.append(Reader(Component(Kind.LOGITS, plan.layers)))
    return tuple(readers)


# Kinds that read, and (but key-value heads) write, with a layer's attention.
ATTENTION = (Kind.HEAD, Kind.KEY_VALUE, Kind.EXPLICIT, Kind.LEARNED)


def can_see(writer: Component, reader: Component, parallel: bool) -> bool:
    """Whether `reader` takes in a stream to which `writer` has already added."""
    if writer.layer != reader.layer:
        return writer.layer < reader.layer
    writes_before = writer.kind in ATTENTION and reader.kind not in ATTENTION
    return writes_before and not parallel


# Pairs of a writer and a reader that a table may have: twice those of the largest model with published weights.
MOST_PAIRS = 1 << 29


def count_ends(plan: Plan) -> tuple[int, int]:
    """Numbers of writers and readers, without listing them."""
    explicit, learned, bank, mixed = (
        len({layer for layer in layers if 0 <= layer < plan.layers})
        for layers in (plan.explicit_layers, plan.learned_layers, plan.bank_layers, plan.expert_layers)
    )
    shared = explicit * plan.heads * plan.blocks + learned * plan.learned + bank * plan.levels
    writers = 1 + plan.layers * (plan.heads + 1) + mixed * (plan.experts - 1) + shared
    return writers, plan.layers * (plan.heads + 2 * plan.kv_heads + 1) + shared + 1


def check_plan(plan: Plan) -> None:
    """Raise UserError for counts that no model has, before anything is listed by them."""
    counts = (plan.layers, plan.heads, plan.kv_heads, plan.blocks, plan.levels, plan.experts, plan.learned)
    whole = all(isinstance(count, int) for count in counts) and min(counts) >= 0 and min(counts[:3]) >= 1
    if not whole or not isinstance(plan.parallel, bool) or plan.heads % plan.kv_heads:
        raise UserError(f"no model has {plan.layers} layers, {plan.heads} heads and {plan.kv_heads} key-value heads")
    for layers in (plan.explicit_layers, plan.bank_layers, plan.expert_layers, plan.learned_layers):
        if not isinstance(layers, tuple) or not all(isinstance(one, int) and 0 <= one < plan.layers for one in layers):
            raise UserError(f"a model of {plan.layers} layers has no layers {str(layers)[:80]}")
    writers, readers = count_ends(plan)
    if writers * readers > MOST_PAIRS:
        raise UserError(f"{writers} writers and {readers} readers are more than any model has: {MOST_PAIRS} pairs")


def wire(plan: Plan) -> Wiring:
    """The whole graph of a planned model, the same value for the same plan. Raises UserError for one no model has."""
    check_plan(plan)
    return wire_checked(plan)


@lru_cache(maxsize=64)
def wire_checked(plan: Plan) -> Wiring:
    """The graph of a plan that was checked."""
    writers, readers = list_writers(plan), list_readers(plan)
    first = np.array([writer.layer for writer in writers])[:, None]
    second = np.array([reader.component.layer for reader in readers])[None]
    visible = first < second
    if not plan.parallel:
        # `can_see` of a whole layer at once.
        before = np.array([writer.kind in ATTENTION for writer in writers])[:, None]
        after = np.array([reader.component.kind not in ATTENTION for reader in readers])[None]
        visible |= (first == second) & before & after
    return Wiring(plan, writers, readers, visible)
