"""Documents: binary, other encodings, endless lines, links and `..`, many files; and what becomes of them, chunks."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.checkpoints import load_shape
from tests.fuzz.cases import Attempt, Read, Target
from tests.fuzz.mutations import TEXTS, mutate_bytes
from tests.fuzz.tables import ENCODERS, draw_rows
from workbench.banks.corpus import cut_windows
from workbench.memory.chunks import cut_chunks
from workbench.memory.documents import LONGEST_LINE, count_characters, list_files, read_documents

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp037", "shift_jis", "utf-7")
SUFFIXES = (".txt", ".md", ".jsonl", ".csv", ".parquet", ".TXT", ".pdf", "")
MANY = 3000


def draw_text(draw: Random) -> bytes:
    """A text of lines, some hostile, in an encoding."""
    lines = [draw.choice((*TEXTS, "A plain line.", "", "Two. Sentences!")) for _ in range(draw.randrange(6))]
    return "\n".join(lines).encode(draw.choice(ENCODINGS), "backslashreplace")


def draw_content(draw: Random) -> bytes:
    """What a file may hold: text, a table, bytes of anything, one endless line."""
    kind = draw.randrange(80)
    if kind == 0:
        return b"a" * (LONGEST_LINE + draw.randrange(3))
    if kind < 4:
        return draw.randbytes(draw.randrange(4000))
    if kind < 14:
        return ENCODERS[draw.choice(list(ENCODERS))](draw_rows(draw, {"text": "A text. Another one.", "id": "a"}))
    return draw_text(draw) if kind < 30 else "Sätze. Two lines\nof text.\n".encode() * draw.randrange(60)


def fill_folder(draw: Random, folder: Path) -> Sequence[Path]:
    """A folder of odd files and links; the paths that a person might name."""
    for number in range(draw.randrange(1, 5)):
        data = draw_content(draw)
        path = folder / f"{draw.choice(('a', 'ß', '.hidden', 'a b', '-x', 'a.b'))}{number}{draw.choice(SUFFIXES)}"
        path.write_bytes(data if draw.randrange(4) else mutate_bytes(draw, data))
    if draw.randrange(4) == 0:
        link = folder / f"link{draw.choice(SUFFIXES)}"
        link.symlink_to(draw.choice(("..", ".", link.name, "/dev/zero", "/dev/null", "/etc/hostname", "nowhere")))
    if draw.randrange(300) == 0:
        inner = folder / "many"
        inner.mkdir()
        for number in range(MANY):
            (inner / f"{number}.txt").write_text("one")
    names = sorted(folder.iterdir())
    return draw.choice(([folder], names, [folder / ".." / folder.name], [folder / "nothing.txt"], names[:1]))


def read_all(paths: Sequence[Path]) -> None:
    """What `memory write` and `bank cluster` do with documents before any model runs."""
    files = list_files(paths)
    count_characters(files)
    tokenizer = load_shape("llama").tokenizer
    for document in read_documents(files):
        for chunk, _ in zip(cut_chunks(document.blocks, tokenizer, 30), range(20), strict=False):
            assert chunk.text and len(chunk.ids) <= 30
    for window, _ in zip(cut_windows(read_documents(files), 100), range(20), strict=False):
        json.dumps(window.text)


def prepare_documents(workspace: Path) -> Attempt:
    """Folders of odd files."""
    load_shape("llama")

    def attempt(draw: Random) -> Read:
        folder = workspace / "documents"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        paths = fill_folder(draw, folder)
        return lambda: read_all([Path(os.fspath(path)) for path in paths])

    return attempt


TARGETS = (Target("documents", prepare_documents),)
