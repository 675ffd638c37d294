"""Valid artefacts made wrong: bytes cut, flipped and moved; nodes of a JSON value replaced, dropped, doubled, swapped.

Every choice comes from one `random.Random`, so that a case is its seed: the command draws it from a number, the suite
from hypothesis, which then shrinks it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from tests.hostile import HOSTILE

# What stands in place of a value: other types, ends of ranges, paths, names of nodes, texts that try to be more.
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 1000, 999_999, 2**31, -(2**63), 2**64, 10**30, 0.5, -0.0, 1e308, 1e-320,
    float("nan"), float("inf"), float("-inf"), "", " ", "0", "1e400", "a", "0" * 64, "part-000000", "subtree-0000",
    "../../../../etc/passwd", "/dev/zero", "..", "~", "C:\\x", "a\nb", "a0.h0@0", "m0@0", "m999999@0", "logits@3",
    "x1.h0.b0.s1@2", [], [[]], [None], [0, 0], {}, {"": {}}, {"name": None}, [{}], ["a", 1],
)  # fmt: skip
TEXTS = tuple(HOSTILE.values())
# Deeper than any parser's recursion goes.
DEEP = 100_000

Steps = tuple[Any, ...]


def draw_value(draw: Random) -> Any:
    """Some odd value."""
    kind = draw.randrange(10)
    if kind == 0:
        return draw.choice(TEXTS)
    if kind == 1:
        return draw.randint(-(10 ** draw.randrange(1, 25)), 10 ** draw.randrange(1, 25))
    if kind == 2:
        return "".join(chr(draw.randrange(0x20, 0x250)) for _ in range(draw.randrange(12)))
    return copy.deepcopy(draw.choice(ODD))


def cut(draw: Random, data: bytes) -> bytes:
    """The beginning alone."""
    return data[: draw.randrange(len(data) + 1)]


def flip(draw: Random, data: bytes) -> bytes:
    """One bit changed."""
    place = draw.randrange(max(len(data), 1))
    return data[:place] + bytes(byte ^ (1 << draw.randrange(8)) for byte in data[place : place + 1]) + data[place + 1 :]


def overwrite(draw: Random, data: bytes) -> bytes:
    """A few bytes replaced by others, often ends of ranges."""
    place, size = draw.randrange(len(data) + 1), draw.randrange(1, 9)
    new = draw.choice((b"\0" * size, b"\xff" * size, draw.randbytes(size), b"\x7f" + b"\xff" * (size - 1)))
    return data[:place] + new + data[place + size :]


def insert(draw: Random, data: bytes) -> bytes:
    """Bytes put in, or some of its own a second time."""
    place, start = draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)
    new = draw.choice((draw.randbytes(draw.randrange(1, 40)), data[start : start + draw.randrange(1, 200)]))
    return data[:place] + new + data[place:]


def remove(draw: Random, data: bytes) -> bytes:
    """Bytes taken out."""
    place = draw.randrange(len(data) + 1)
    return data[:place] + data[place + draw.randrange(1, 60) :]


def replace_all(draw: Random, data: bytes) -> bytes:
    """Something else altogether."""
    size = draw.randrange(200)
    return draw.choice(
        (b"", b"\0" * size, draw.randbytes(size), b"{}", b"[]", b"null", b"PK\x03\x04", b"PAR1", b"\xff")
    )


BYTES: tuple[Callable[[Random, bytes], bytes], ...] = (cut, flip, flip, overwrite, overwrite, insert, remove)


def mutate_bytes(draw: Random, data: bytes) -> bytes:
    """Bytes with one to three changes; at times something else altogether."""
    if draw.randrange(12) == 0:
        return replace_all(draw, data)
    for _ in range(draw.randrange(1, 4)):
        data = draw.choice(BYTES)(draw, data)
    return data


def list_places(value: Any, steps: Steps = ()) -> Iterator[Steps]:
    """Ways to every node of a JSON value, the root first."""
    yield steps
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from list_places(item, (*steps, key))


def draw_place(draw: Random, value: Any) -> Steps:
    """A node of a JSON value: down from the root, so that the few upper ones are met as often as the many below."""
    steps: Steps = ()
    while isinstance(value, dict | list) and value and (not steps or draw.randrange(8)):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        # Where there is more below, rather there: else the few plain fields of a head are nearly all that is changed.
        deep = [key for key in keys if isinstance(value[key], dict | list)] if draw.randrange(4) else []
        key = draw.choice(deep or keys)
        steps, value = (*steps, key), value[key]
    return steps


def find(value: Any, steps: Steps) -> Any:
    """The node at the end of a way."""
    for step in steps:
        value = value[step]
    return value


def change_place(draw: Random, value: Any, steps: Steps) -> Any:
    """The value with one change at a node, or in the object or list that holds it."""
    if not steps:
        return draw_value(draw)
    holder, key = find(value, steps[:-1]), steps[-1]
    match draw.randrange(8):
        case 0:
            del holder[key]
        case 1:
            holder[key] = [holder[key]]
        case 2:
            other = find(value, draw_place(draw, value))
            holder[key] = copy.deepcopy(other)
        case 3 if isinstance(holder, list):
            holder.insert(draw.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
        case 3 if isinstance(holder, dict):
            holder[str(draw_value(draw))] = holder.pop(key)
        case 4 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = draw.choice((-holder[key], holder[key] + 1, holder[key] * 1000, holder[key] - 1))
        case 5 if isinstance(holder[key], str):
            text = holder[key]
            holder[key] = draw.choice((text + "x", text[:-1], text.upper(), text * 2, f" {text}", f"../{text}"))
        case _:
            holder[key] = draw_value(draw)
    return value


def mutate_json(draw: Random, value: Any) -> Any:
    """A copy of a JSON value with one to three changes."""
    value = copy.deepcopy(value)
    for _ in range(draw.randrange(1, 4)):
        value = change_place(draw, value, draw_place(draw, value))
    return value


def change_finely(draw: Random, value: Any, steps: Steps) -> None:
    """One change at a node that leaves its type, so that what checks shapes alone lets it through."""
    holder, key = find(value, steps[:-1]), steps[-1]
    node = holder[key]
    if isinstance(node, bool):
        holder[key] = not node
    elif isinstance(node, int):
        holder[key] = draw.choice((node + 1, node - 1, 0, 1, node * 2, -node))
    elif isinstance(node, float):
        holder[key] = draw.choice((node / 2, -node, 0.0, 1.0, node + 1e-9, node * 1e6))
    elif isinstance(node, str):
        alike = [one for step in list_places(value) if isinstance(one := find(value, step), str)]
        holder[key] = draw.choice((draw.choice(alike), draw.choice(alike), draw.choice(TEXTS), node[::-1], node[:-1]))
    elif isinstance(node, list) and node:
        place = draw.randrange(len(node))
        draw.choice((node.reverse, node.pop, node.clear, lambda: node.append(copy.deepcopy(node[place]))))()
    elif isinstance(node, dict) and node:
        first, second = draw.choice(list(node)), draw.choice(list(node))
        node[first], node[second] = node[second], node[first]


def mutate_finely(draw: Random, value: Any) -> Any:
    """A copy of a JSON value with one to three changes that keep every type."""
    value = copy.deepcopy(value)
    for _ in range(draw.randrange(1, 4)):
        places = draw_place(draw, value), draw_place(draw, value)
        if steps := max(places, key=len):
            change_finely(draw, value, steps)
    return value


def spell_json(draw: Random, value: Any) -> bytes:
    """JSON text of a mutated value; at times its bytes are changed too, or it is endlessly deep."""
    kind = draw.randrange(20)
    if kind >= 14:
        return json.dumps(mutate_finely(draw, value)).encode()
    if kind == 0:
        return mutate_bytes(draw, json.dumps(value).encode())
    if kind == 1:
        return draw.choice((b"[" * DEEP, b'{"a":' * DEEP, b"[" * DEEP + b"]" * DEEP))
    if kind == 2:
        text = json.dumps(mutate_json(draw, value), ensure_ascii=False)
        return (
            text.encode(draw.choice(("utf-16", "utf-8", "latin-1", "utf-32")), "surrogatepass" if kind else "strict")
            if text.isascii()
            else text.encode("utf-8", "surrogatepass")
        )
    return json.dumps(mutate_json(draw, value)).encode()
