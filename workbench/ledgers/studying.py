"""Making studies: the ledger of a question, of a conflict, or of a memory that is written for it, with what was read.

    question -> laid out -> ledgers, references with attention, cluster path, answers -> Study

Every function takes a `tick`, which reports progress and may stop the work between two passes.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from probes.progress import Tick, quiet
from workbench.answers import Condition
from workbench.cases import Side, build_side, predict_foil
from workbench.engine import Engine
from workbench.ledgers.measuring import describe_source, measure_batch
from workbench.ledgers.prompts import Laid, attach
from workbench.ledgers.questions import REMOVALS, lay_question, measure_conflict
from workbench.ledgers.table import Ledger
from workbench.ledgers.trials import Change, find_question, try_change, use_bank
from workbench.settings import Question, Settings
from workbench.studies import Level, Reference, Study, describe_path

if TYPE_CHECKING:
    from probes.forward import Record
    from probes.memory_bank import MemoryBank

# Parts listed of each format, and digits kept of attention.
TOP, DIGITS = 20, 5


def measure(engine: Engine, laid: Laid, metric: str, tick: Tick) -> tuple[Ledger, ...]:
    """Ledgers of a laid question, one for each way of removing an explicit memory."""
    ways = REMOVALS if laid.condition[1] else REMOVALS[:1]
    found = []
    for done, way in enumerate(ways):
        tick(f"combinations of places ({way})", done, len(ways))
        found.append(measure_batch(engine, [laid], way, metric, TOP, 0.0)[0])
    return tuple(found)


def study_question(engine: Engine, name: str, question: Question, settings: Settings, tick: Tick = quiet) -> Study:
    """Ledger, references, path and answers of one question. Raises UserError as `lay_question`."""
    tick("laying out the question", 0, 1)
    laid = lay_question(engine, question, settings)
    ledgers = measure(engine, laid, settings.metric, tick)
    tick("what was read", 0, 1)
    answers = (try_change(engine, question, settings, Change()),)
    about = describe_source(engine, settings) | {"kind": "ledger", "question": question.to_json()}
    references = read_references(engine, laid)
    return Study(name, about, ledgers, references, list_levels(engine, laid.path), answers)


def study_conflict(
    engine: Engine, name: str, question: Question, says: tuple[str, str], settings: Settings, tick: Tick = quiet
) -> Study:
    """Whose answer wins, text's, memory's or the parameters'. Raises UserError as `measure_conflict`."""
    found = measure_conflict(engine, question.fact, *says, settings, top=TOP, tick=tick)
    winner = found.rivals[0]
    conflict = {
        "text_says": says[0],
        "memory_says": says[1],
        "winner": winner.answer,
        "winner_says": winner.says,
        "said": found.said,
        "says": [rival.says for rival in found.rivals],
    }
    settings = replace(settings, metric="log-prob")
    about = describe_source(engine, settings) | {
        "kind": "conflict",
        "question": question.to_json(),
        "conflict": conflict,
    }
    return Study(name, about, tuple(rival.ledger for rival in found.rivals))


def study_writing(
    engine: Engine,
    name: str,
    document: str,
    question: Question,
    settings: Settings,
    folder: Path,
    tick: Tick = quiet,
) -> Study:
    """Write a typed document into the bank in `folder`, and ask with it, without it, and with it as text.

    Where the question has an answer its ledger is measured too. Raises UserError for an empty document or prompt.
    """
    if not document.strip() or not question.prompt.strip():
        raise UserError("a new fact needs its document and a question about it: type both")
    tick("writing the memory", 0, 1)
    bank, ids = write_typed(engine, document, folder)
    engine = use_bank(engine, bank)
    settings = replace(settings, memory=str(folder), memory_ids=",".join(ids), text="none")
    fact, prompt, answer = find_question(engine, question)
    side = build_side(engine, settings, fact, prompt, always=True)
    answers = answer_sides(engine, side, document.strip(), answer, tick)
    ledgers: tuple[Ledger, ...] = ()
    references: tuple[Reference, ...] = ()
    if answer:
        question = complete_foil(engine, question, side, settings)
        laid = lay_question(engine, question, settings)
        ledgers, references = measure(engine, laid, settings.metric, tick), read_references(engine, laid)
    written = {"document": document.strip(), "memories": list(ids), "bank": folder.name}
    about = describe_source(engine, settings) | {"kind": "writing", "question": question.to_json(), "written": written}
    return Study(name, about, ledgers, references, list_levels(engine, side.path), answers)


def complete_foil(engine: Engine, question: Question, side: Side, settings: Settings) -> Question:
    """The question with a foil where the metric needs one: what the model says without the memory."""
    if settings.metric != "logit-diff" or question.foil:
        return question
    return replace(question, foil=predict_foil(engine, replace(side, found=()), question.answer, settings.metric))


def answer_sides(engine: Engine, side: Side, document: str, answer: str, tick: Tick) -> tuple[Condition, ...]:
    """Answers without the written memory, with it, and with the document as text."""
    from workbench.conditions import answer_side

    bare = replace(side, found=())
    sides = {
        "without the memory": bare,
        "with the written memory": side,
        "with the document as text": replace(bare, text=document),
    }
    found = []
    for done, (name, one) in enumerate(sides.items()):
        tick("answers", done, len(sides))
        found.append(answer_side(engine, name, one, answer, ""))
    return tuple(found)


def write_typed(engine: Engine, document: str, folder: Path) -> tuple[MemoryBank, tuple[str, ...]]:
    """Write a document as those of the engine's bank were written; ids of its memories, one a chunk of 128 tokens.

    The same document again is not written twice. Raises UserError for a bank of another model in the folder.
    """
    from probes.memory_bank import MemoryBank, open_bank
    from probes.writing import Recipe, choose_first_half
    from workbench.memory.inspection import list_entries
    from workbench.memory.writing import write_documents

    recipe = Recipe(choose_first_half(engine.model))
    if isinstance(engine.memories, MemoryBank):
        head = engine.memories.head
        recipe = replace(
            recipe,
            layers=head.layers,
            slots=head.slots,
            offset=head.offset,
            prefix=head.prefix,
            scoring=head.scoring,  # type: ignore[arg-type]
            pooling=head.pooling,  # type: ignore[arg-type]
            positions=head.positions,
        )
    typed = f"typed-{hashlib.sha256(document.strip().encode()).hexdigest()[:12]}"
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "typed.jsonl"
        path.write_text(json.dumps({"id": typed, "text": document.strip()}) + "\n", encoding="utf-8")
        write_documents(engine.model, [(path, "typed on the Memory page")], folder, recipe, "float32", 16, quiet)
    bank = open_bank(folder, engine.model)
    names = [str(entry["id"]) for entry in list_entries(bank, len(bank))]
    return bank, tuple(name for name in names if name == typed or name.startswith(f"{typed}#"))


def list_levels(engine: Engine, path: tuple[int, ...]) -> tuple[Level, ...]:
    """Levels of a path with siblings, empty without a bank; facts are counted in the bank that they belong to."""
    from workbench.banks.reading import is_shipped

    if engine.bank is None or not path:
        return ()
    return describe_path(path, engine.bank.branching, engine.facts if is_shipped(engine.bank) else ())


def read_references(engine: Engine, laid: Laid) -> tuple[Reference, ...]:
    """Explicit memories and text of a laid question, with what every head gives them at the answer's first token.

    Memories that were written for a conflict keep no record of their tokens and are left out.
    """
    import torch

    from circuits.problem import record_run

    row = laid.behind or laid.plain
    record, _ = record_run(engine.model, torch.tensor([row]), attach(engine, [laid]), attention=True)
    end, group = len(row) - len(laid.answer_ids), engine.model.heads // engine.model.kv_heads
    found = [] if laid.explicit is not None else read_memories(engine, laid, record, end, group)
    if laid.behind:
        start, stop, _ = laid.text
        tokens = tuple(engine.model.decode(token) for token in row[start:stop])
        layers = tuple(range(engine.model.layers))
        attention = [share_context(record, layer)[:, end, start:stop] for layer in layers]
        found.append(Reference("text", "text before the prompt", tokens, layers, group, (), round_attention(attention)))
    return tuple(found)


def read_memories(engine: Engine, laid: Laid, record: Record, end: int, group: int) -> list[Reference]:
    """References of the explicit memories, the faithful reader's prefix left out."""
    from workbench.provenance import describe_block

    found = []
    for number, one in enumerate(laid.found):
        assert engine.memories is not None
        block, layers = describe_block(engine, one), engine.memories.layers
        attention = [record.slot_weights[layer][0, end, :, number] for layer in layers]
        kept = tuple(tuple(tuple(head) for head in layer) for layer in block["kept"])
        tokens = tuple(str(token) for token in block["tokens"])
        found.append(Reference(f"memory {number + 1}", one.id, tokens, layers, group, kept, round_attention(attention)))
    return found


def share_context(record: Record, layer: int) -> Any:
    """Attention to the context [head query key], as probabilities of one softmax over memories and context."""
    pattern = record.pattern[layer][0]
    return pattern * record.share[layer][0].T[:, :, None] if layer in record.share else pattern


def round_attention(layers: Sequence[Any]) -> tuple[tuple[tuple[float, ...], ...], ...]:
    """Tensors [head slot] as numbers that a file can keep."""
    return tuple(
        tuple(tuple(round(float(slot), DIGITS) for slot in head) for head in layer.detach().float().cpu().tolist())
        for layer in layers
    )
