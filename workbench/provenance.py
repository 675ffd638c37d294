"""Where a run comes from: versions, memories with their hashes, and the command that makes it again."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from workbench.settings import Question, Settings

if TYPE_CHECKING:
    from workbench.cases import Case
    from workbench.engine import Engine

PACKAGES = ("memory-circuits", "torch", "transformer-lens", "transformers", "numpy")


def read_version(package: str) -> str:
    """Installed version of a distribution, or `not installed`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def list_versions() -> dict[str, str]:
    """Versions that numbers may depend on."""
    return {"python": platform.python_version()} | {package: read_version(package) for package in PACKAGES}


def build_command(question: Question, settings: Settings) -> str:
    """The command line that traces the same question again, defaults left out."""
    words = ["memory-circuits", "trace"]
    for source, default in ((question, Question()), (settings, Settings())):
        for field in fields(source):
            value = getattr(source, field.name)
            if value == getattr(default, field.name):
                continue
            # Several facts are `--fact` again and again.
            name = "--fact" if field.name == "facts" else f"--{field.name.replace('_', '-')}"
            if value is True:
                words.append(name)
                continue
            for one in value if isinstance(value, tuple) else (value,):
                # A value that starts with a dash would be read as an option of its own.
                words += [f"{name}={one}"] if str(one).startswith("-") else [name, str(one)]
    return shlex.join(words)


def describe_memories(engine: Engine, cases: Sequence[Case], reading: str = "fetched") -> dict[str, Any]:
    """JSON object of the memories attached to the clean run (and where the counterfactual's differ).

    Of several cases only what they share: which clusters and explicit memories each reads stands with its pair.
    """
    bank = memories = text = None
    case, several = cases[0], len(cases) > 1
    if engine.bank is not None and case.clean.path:
        bank = {
            "name": engine.bank.folder.name,
            "sha256": engine.bank.sha256,
            "reading": reading,
            "path": [] if several else list(case.clean.path),
            "counterfactual_path": [] if several else list(case.counterfactual.path),
            "kind": engine.bank.design.kind,
            "units": list(engine.bank.design.ranks),
            "layers": list(engine.bank.layers),
        }
    if engine.memories is not None and case.clean.memories:
        memories = {
            "name": "memory",
            "sha256": engine.memories.sha256,
            "layers": list(engine.memories.layers),
            "slots": engine.memories.slots,
            "offset": engine.memories.offset,
            "blocks": [] if several else [describe_block(engine, name) for name in case.clean.memories],
            "counterfactual_blocks": [] if several else list(case.counterfactual.memories),
        }
    if case.clean.text and not several:
        text = {"text": case.clean.text, "counterfactual": case.counterfactual.text}
    return {"bank": bank, "explicit": memories, "text": text}


def describe_block(engine: Engine, name: str) -> dict[str, Any]:
    """One explicit memory: the text it was written from, its tokens, and the kept tokens [layer][kv_head][slot]."""
    from probes.explicit import REFERENCE_LENGTH, encode_reference

    assert engine.memories is not None
    text = next((fact.document for fact in engine.facts if fact.document_id == name), "")
    limit = min(REFERENCE_LENGTH, engine.memories.offset)
    ids, _ = encode_reference(engine.model.tokenizer, engine.memories.prefix, text, limit)
    kept = engine.memories.select((name,)).positions[0]
    return {"id": name, "text": text, "tokens": [engine.model.decode(token) for token in ids], "kept": kept.tolist()}
