"""A loaded model with its memories, facts and one lock; what pages and commands hold on to between questions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from probes.errors import UserError
from probes.facts import Fact
from probes.progress import Tick, quiet
from workbench.library import find_shipped, read_shipped_facts, read_template
from workbench.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from probes.attachments import Attachment, ExplicitBlocks
    from probes.bank import Bank
    from probes.explicit import MemorySource
    from probes.models import Model
    from workbench.memory.retrieval import Retriever


@dataclass(frozen=True, slots=True)
class Engine:
    """Model, memories (None where there are none for this model), facts, and how a text stands before a prompt.

    `retriever` finds memories by a text, where there are memories; `prefix` is that of the faithful reader, None unless
    asked for. Threads may share it one after the other: the model takes its own lock for every pass.
    """

    model: Model
    bank: Bank | None
    memories: MemorySource | None
    facts: tuple[Fact, ...]
    template: str = field(repr=False)
    retriever: Retriever | None = field(default=None, repr=False)
    prefix: ExplicitBlocks | None = field(default=None, repr=False)

    def attach(self, path: tuple[int, ...], memories: tuple[str, ...]) -> Attachment:
        """Bank blocks of a path and explicit memories of these ids, ready for a pass; empty: none of that kind.

        The faithful reader's prefix comes with the memories, as their last block.
        """
        return self.attach_rows([(path, memories)])

    def attach_rows(self, rows: Sequence[tuple[tuple[int, ...], tuple[str, ...]]]) -> Attachment:
        """What `attach` gives for several prompts, a row each, read from disk together.

        Raises UserError unless all have as many levels and memories.
        """
        from probes.attachments import Attachment, stack_attachments
        from probes.bank import fetch_rows
        from probes.explicit import fetch_memory_rows
        from probes.prefix import add_prefix

        if len({(len(path), len(memories)) for path, memories in rows}) > 1:
            return stack_attachments([self.attach(*row) for row in rows])
        paths, memories = [path for path, _ in rows], [ids for _, ids in rows]
        bank = fetch_rows(self.bank, self.model, paths) if self.bank is not None and paths[0] else None
        explicit = (
            fetch_memory_rows(self.memories, self.model, memories)
            if self.memories is not None and memories[0]
            else None
        )
        if explicit is not None and self.prefix is not None:
            explicit = add_prefix(explicit, self.prefix)
        return Attachment(explicit, bank)


def find_store(choice: str, name: str, shipped: Path | None) -> Path | None:
    """Folder of a bank or memory: the shipped one for `auto` and `own`, None for `none`, else a path."""
    if choice == "none":
        return None
    if choice in ("auto", "own"):
        return shipped / name if shipped is not None and (shipped / name).is_dir() else None
    path = Path(choice).expanduser()
    if not path.is_dir():
        raise UserError(f"no folder {choice}: --{name} takes auto, none or the folder of a {name}")
    return path


def open_engine(settings: Settings, tick: Tick = quiet, weights: Mapping[str, Tensor] | None = None) -> Engine:
    """Load what the settings name, with the `weights` that another process shares where they are given.

    Raises UserError for whatever a person can put right.
    """
    settings.check()
    tick("loading the model", 0, 3)
    from probes.bank import load_bank
    from probes.memory_bank import open_bank
    from probes.models import load_model
    from probes.prefix import read_prefix
    from workbench.memory.retrieval import Retriever

    shipped = find_shipped() if settings.model == "shipped" else None
    name = str(shipped / "model") if shipped is not None else settings.model
    where = settings.dtype, settings.device, settings.device_map, settings.trust_remote_code
    model = load_model(name, *where, weights=weights)
    model = replace(model, name=settings.model) if shipped is not None else model
    tick("loading memories", 1, 3)
    bank_folder = find_store(settings.bank, "bank", shipped)
    memory_folder = find_store(settings.memory, "memory", shipped)
    bank = load_bank(bank_folder, model) if bank_folder is not None else None
    memories = open_bank(memory_folder, model) if memory_folder is not None else None
    if memories is None and (settings.memory_ids or settings.faithful):
        raise UserError("--memory-ids and --faithful are about a bank of explicit memories: give one with --memory")
    prefix = retriever = None
    if memories is not None:
        retriever = Retriever(memories)
        prefix = read_prefix(model, memories.prefix, memories.offset) if settings.faithful else None
    tick("loading facts", 2, 3)
    return Engine(model, bank, memories, read_shipped_facts(), read_template(find_shipped()), retriever, prefix)
