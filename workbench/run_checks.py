"""What every reader of a run takes for granted of its JSON object, checked once when it is opened.

`run.schema.json` says all of it; `memory-circuits verify` checks a run against that. A run over a hundred thousand
pairs has to open at once, so here is what the code relies on, and no more: types of what is read, in one pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from workbench.json_values import are_integers, are_objects, are_texts, is_integer, is_number, require

TEXTS = ("clean", "counterfactual", "answer", "foil")
TOKENS = tuple(f"{name}_tokens" for name in TEXTS)
IDS = tuple(f"{name}_ids" for name in TEXTS)
MEASURED = ("metric_whole", "metric_empty", "metric_circuit", "normalised")
RANDOM = ("mean", "low", "high", "n")
OBJECTS = ("question", "settings", "model", "memories", "faithfulness", "versions")


def check_about(about: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the place, for what a run or circuit file says of its question in another form."""
    for name in OBJECTS:
        require(isinstance(about.get(name), dict), name, "an object")
    require(isinstance(about.get("summed"), bool), "summed", "true or false")
    require(isinstance(about.get("command"), str), "command", "text")
    require(isinstance(about.get("fact"), dict | str | None), "fact", "an object or text")
    require(isinstance(about.get("selection"), dict | None), "selection", "an object")
    check_model(about["model"])
    check_pairs(about.get("pairs"))
    check_memories(about["memories"])
    check_faithfulness(about["faithfulness"])
    check_conditions(about.get("conditions"))


def check_model(model: Mapping[str, Any]) -> None:
    """Name, hash and width of the model."""
    for name in ("name", "sha256"):
        require(isinstance(model.get(name, ""), str), f"model.{name}", "text")
    require(is_integer(model.get("d_model", 0)), "model.d_model", "a whole number")


def check_pairs(pairs: object) -> None:
    """Prompt pairs: texts, tokens and ids, an answer and a foil of at least one token."""
    require(are_objects(pairs) and bool(pairs), "pairs", "a list of objects")
    assert isinstance(pairs, list)
    for place, pair in enumerate(pairs):
        for names, check, wanted in (
            (TEXTS, lambda value: isinstance(value, str), "text"),
            (TOKENS, are_texts, "a list of texts"),
            (IDS, are_integers, "a list of whole numbers"),
        ):
            for name in names:
                require(check(pair.get(name)), f"pairs[{place}].{name}", wanted)
        for name in ("answer_ids", "answer_tokens", "foil_ids", "foil_tokens"):
            require(bool(pair[name]), f"pairs[{place}].{name}", "a list with something in it")


def check_memories(memories: Mapping[str, Any]) -> None:
    """Memories that were attached, each an object: clusters of a bank, blocks of an explicit memory."""
    for name in ("bank", "explicit", "text"):
        require(isinstance(memories.get(name), dict | None), f"memories.{name}", "an object")
    explicit, bank = memories.get("explicit") or {}, memories.get("bank") or {}
    for name in ("path", "counterfactual_path"):
        require(are_integers(bank.get(name, [])), f"memories.bank.{name}", "a list of whole numbers")
    blocks = explicit.get("blocks", [])
    require(are_integers(explicit.get("layers") or []), "memories.explicit.layers", "a list of whole numbers")
    require(are_objects(blocks), "memories.explicit.blocks", "a list of objects")
    for place, block in enumerate(blocks):
        where = f"memories.explicit.blocks[{place}]"
        require(isinstance(block.get("id"), str), f"{where}.id", "text")
        require(block.get("similarity") is None or is_number(block["similarity"]), f"{where}.similarity", "a number")
        require(are_texts(block.get("tokens", [])), f"{where}.tokens", "a list of texts")
        require(are_slots(block.get("kept", [])), f"{where}.kept", "token numbers by layer, head and slot")


def are_slots(value: object) -> bool:
    """Whether a JSON value is whole numbers in lists of lists of lists."""
    return isinstance(value, list) and all(isinstance(layer, list) and all(map(are_integers, layer)) for layer in value)


def check_faithfulness(value: Mapping[str, Any]) -> None:
    """Numbers that were measured, none where a run did not measure it; all finite."""
    check_numbers("faithfulness", value, MEASURED)
    random = value.get("random")
    require(isinstance(random, dict | None) and random != {}, "faithfulness.random", "an object with something in it")
    check_numbers("faithfulness.random", random or {}, RANDOM)


def check_numbers(place: str, value: Mapping[str, Any], names: Iterable[str]) -> None:
    """Those of some numbers that are there; all of them or none."""
    if value:
        for name in names:
            require(is_number(value.get(name)), f"{place}.{name}", "a finite number")


def check_conditions(conditions: object) -> None:
    """What the model answered in each condition."""
    require(are_objects(conditions), "conditions", "a list of objects")
    assert isinstance(conditions, list)
    for place, condition in enumerate(conditions):
        where = f"conditions[{place}]"
        require(isinstance(condition.get("name"), str), f"{where}.name", "text")
        answer, top = condition.get("answer"), condition.get("top") or []
        require(isinstance(answer, dict | None) and are_objects(top), where, "a question's answers")
        for one in [*([answer] if answer else []), *top]:
            require(is_number(one.get("probability")), f"{where}: a probability", "a finite number")
            require(isinstance(one.get("text"), str), f"{where}: an answer", "text")
