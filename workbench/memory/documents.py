"""Documents on disk as streams of text: .txt and .md whole, a row each of .jsonl, .csv and .parquet, and folders.

No document is ever held whole. Rows have their text in the column `text` and may have a name in `id`.
"""

from __future__ import annotations

import codecs
import csv
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from probes.descriptions import open_file
from probes.errors import UserError
from probes.parquet_tables import require_file
from probes.strict_json import parse_json

# Bytes read at a time of a text, and the longest line of a file of rows.
BLOCK = 1 << 16
LONGEST_LINE = 16 << 20


@dataclass(frozen=True, slots=True)
class Document:
    """A document: its name in the bank, its text in blocks, and the id its row gave it ("" where none)."""

    name: str
    blocks: Iterator[str]
    id: str = ""


def read_text(path: Path, name: str) -> Iterator[Document]:
    """One document of a whole text file."""
    yield Document(name, decode_blocks(path))


@contextmanager
def open_document(path: Path) -> Iterator[BinaryIO]:
    """A file of a document. Raises UserError when it cannot be read, which is long after the document was named."""
    try:
        with open_file(path) as file:
            yield file
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def decode_blocks(path: Path) -> Iterator[str]:
    """Text of a UTF-8 file, block by block. Raises UserError when it is binary, not UTF-8, or one endless line."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    length = 0
    with open_document(path) as file:
        while True:
            block = file.read(BLOCK)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise UserError(f"{path} is not UTF-8 text ({error.reason}): convert it, or leave it out") from None
            if "\0" in text:
                raise UserError(f"{path} is binary, not text: leave it out")
            length = length + len(text) if "\n" not in text else len(text) - text.rfind("\n")
            if length > LONGEST_LINE:
                raise UserError(f"{path} has a line longer than {LONGEST_LINE >> 20} MiB: break it up, or leave it out")
            if text:
                yield text
            if not block:
                return


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 file, ends kept. Raises UserError for one that is too long to be held, or is not text."""
    with open_document(path) as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise UserError(f"{path}, line {number} is longer than {LONGEST_LINE >> 20} MiB: cut it into rows")
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise UserError(f"{path}, line {number} is not UTF-8 text") from None


def read_jsonl(path: Path, name: str) -> Iterator[Document]:
    """A document a line, a JSON object with `text`."""
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number} is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f'{path}, line {number} is not an object such as {{"text": "..."}}')
        yield build_document(path, name, number, row)


def read_csv(path: Path, name: str) -> Iterator[Document]:
    """A document a row, under a heading `text`."""
    reader = csv.DictReader(read_lines(path), strict=True)
    try:
        for number, row in enumerate(reader, start=1):
            yield build_document(path, name, number, row)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num} is not CSV ({error})") from None


def read_parquet(path: Path, name: str) -> Iterator[Document]:
    """A document a row of the column `text`."""
    require_file(path)
    try:
        with pq.ParquetFile(path) as file:
            columns = [column for column in ("text", "id") if column in file.schema_arrow.names]
            number = 0
            for batch in file.iter_batches(batch_size=64, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield build_document(path, name, number, row)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a whole Parquet file ({' '.join(str(error).split())[:120]})") from None


def build_document(path: Path, name: str, number: int, row: dict[str, object]) -> Document:
    """Document of a row. Raises UserError when it has no text."""
    if "text" not in row:
        raise UserError(f"{path}, row {number} has no `text`: name the column or key that holds the text so")
    text = row["text"]
    given = "" if row.get("id") is None else str(row["id"])
    if isinstance(text, str) and len(text) > LONGEST_LINE:
        raise UserError(f"{path}, row {number}: `text` is longer than {LONGEST_LINE >> 20} MiB: cut it into rows")
    if not isinstance(text, str) or not text.strip() or "\0" in text or not is_unicode(text + given):
        raise UserError(f"{path}, row {number}: `text` is empty or not text")
    return Document(f"{name}:{number}", iter([text]), given)


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: JSON may hold half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


READERS: dict[str, Callable[[Path, str], Iterator[Document]]] = {
    ".txt": read_text,
    ".md": read_text,
    ".jsonl": read_jsonl,
    ".csv": read_csv,
    ".parquet": read_parquet,
}


def list_files(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Files to read with their names, folders searched through in a stable order.

    In a folder other kinds of files, and hidden ones, are passed over. Raises UserError for a path that is missing,
    or named itself and of no kind that is read, or when there is nothing to read.
    """
    files: list[tuple[Path, str]] = []
    for path in paths:
        if path.is_dir():
            files += list_folder(path)
        elif not path.exists():
            raise UserError(f"no file or folder {path}")
        elif path.suffix.lower() not in READERS:
            raise UserError(f"{path} is none of {', '.join(READERS)}: convert it")
        else:
            files.append((path, path.name))
    if not files:
        raise UserError(f"no documents there: give files or folders with {', '.join(READERS)}")
    return files


def list_folder(folder: Path) -> Iterator[tuple[Path, str]]:
    """Readable files below a folder, by name; links to folders are not followed."""
    for base, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            path = Path(base) / name
            if not name.startswith(".") and path.suffix.lower() in READERS:
                yield path, path.relative_to(folder).as_posix()


def read_documents(files: Sequence[tuple[Path, str]]) -> Iterator[Document]:
    """Documents of these files, one after the other. Raises UserError for one that cannot be read."""
    for path, name in files:
        try:
            yield from READERS[path.suffix.lower()](path, name)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None


def count_characters(files: Sequence[tuple[Path, str]]) -> int:
    """Characters of all documents, read once through before any work, so that a bad one is met before it.

    Raises UserError for a file that is empty or cannot be read.
    """
    total = 0
    for path, name in files:
        own = 0
        for document in read_documents([(path, name)]):
            own += sum(len(block) if block.strip() else 0 for block in document.blocks)
        if not own:
            raise UserError(f"{path} is empty: give it some text, or leave it out")
        total += own
    return total
