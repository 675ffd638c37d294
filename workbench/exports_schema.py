"""Checks a JSON value against the part of JSON Schema that `circuit.schema.json` uses, and names the field at fault.

The package that does all of JSON Schema is needed by the tests alone, which hold this one against it. Stricter here:
`1.0` is no integer, and a number must fit a float.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

Schema = dict[str, Any]


def is_number(value: Any) -> bool:
    """Whether a value is a number that fits a float; JSON text can also spell infinite and endless ones."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "integer": lambda value: isinstance(value, int) and is_number(value),
    "number": is_number,
}


def describe_value(value: Any) -> str:
    """A value in an error message, cut when long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def find_scalar_fault(value: Any, schema: Schema) -> str:
    """What is wrong with a value itself, its parts left aside; nothing when all is well."""
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(TYPES[name](value) for name in names):
            return f"is {describe_value(value)}, wanted {' or '.join(names)}"
    if "const" in schema and (type(value) is not type(schema["const"]) or value != schema["const"]):
        return f"is {describe_value(value)}, wanted {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        return f"is {describe_value(value)}, wanted one of {', '.join(map(str, schema['enum']))}"
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        return f"is {describe_value(value)}, wanted text of the form {schema['pattern']}"
    if is_number(value):
        if "minimum" in schema and value < schema["minimum"]:
            return f"is {value}, wanted {schema['minimum']} or more"
        if "maximum" in schema and value > schema["maximum"]:
            return f"is {value}, wanted {schema['maximum']} or less"
    return ""


def list_parts(value: Any, schema: Schema, path: str) -> Iterator[tuple[Any, Schema, str]]:
    """Parts of an object or array with the schema of each and the path to it."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name in schema.get("properties", {}):
                yield part, schema["properties"][name], f"{path}.{name}"
    elif isinstance(value, list) and "items" in schema:
        for index, part in enumerate(value):
            yield part, schema["items"], f"{path}[{index}]"


def check_value(value: Any, schema: Schema, path: str = "$") -> str:
    """The first fault of a value, as `path is X, wanted Y`; nothing when it obeys the schema."""
    fault = find_scalar_fault(value, schema)
    if fault:
        return f"{path} {fault}"
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            if name not in value:
                return f"{path}.{name} is missing"
        unknown = [name for name in value if name not in schema.get("properties", {})]
        if unknown and schema.get("additionalProperties") is False:
            return f"{path} has the unknown key {describe_value(unknown[0])}"
    for part, part_schema, part_path in list_parts(value, schema, path):
        fault = check_value(part, part_schema, part_path)
        if fault:
            return fault
    return ""
