"""A corpus as token ids: documents tokenised in pieces, so that no document's text is held whole."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.progress import Tick
from workbench.memory.documents import count_characters, list_files, read_documents

# Characters that are tokenised at a time; a piece ends before white space, so that no word is cut.
PIECE = 1 << 16

Files = Sequence[tuple[Path, str]]


def open_corpus(paths: Sequence[str]) -> tuple[Files, int]:
    """Files of a corpus, and their characters. Raises UserError when one is missing, empty or cannot be read."""
    files = list_files([Path(path).expanduser() for path in paths])
    return files, count_characters(files)


def hash_corpus(files: Files) -> str:
    """SHA-256 of the contents of all files, in order."""
    digest = hashlib.sha256()
    for path, _ in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def cut_pieces(blocks: Iterator[str]) -> Iterator[str]:
    """A document's text in pieces, white space at both its ends left out."""
    held, begun = "", False
    for block in blocks:
        held += block
        if not begun:
            held = held.lstrip()
            begun = bool(held)
        while len(held) > PIECE:
            cut = len(held[: PIECE + 1].rsplit(None, 1)[0].rstrip()) or PIECE
            yield held[:cut]
            held = held[cut:]
    if held.rstrip():
        yield held.rstrip()


def find_head(tokenizer: Any) -> list[int]:
    """Tokens that begin a document: those that the tokenizer itself puts there, else the end-of-text token, if any."""
    head = list(tokenizer("")["input_ids"])
    if head or tokenizer.eos_token_id is None:
        return head
    return [int(tokenizer.eos_token_id)]


def read_tokens(files: Files, tokenizer: Any, characters: int, tick: Tick) -> Iterator[tuple[str, array[int]]]:
    """Name and token ids of each document, without the tokens that begin it; empty documents are passed over.

    Raises UserError for a document that cannot be read.
    """
    done = 0
    for document in read_documents(files):
        ids = array("i")
        for piece in cut_pieces(document.blocks):
            ids.extend(tokenizer(piece, add_special_tokens=False)["input_ids"])
            done += len(piece)
            tick("reading the corpus", min(done, characters), characters)
        if ids:
            yield document.name, ids


def require_documents(count: int, wanted: int, purpose: str) -> None:
    """Raise UserError when a corpus has fewer documents than its purpose needs."""
    if count < wanted:
        documents = f"{count} document" + ("" if count == 1 else "s")
        raise UserError(f"the corpus has {documents} and {purpose} needs {wanted} or more: give more text")
