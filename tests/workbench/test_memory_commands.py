"""A bank from one's own documents: written, resumed, damaged, stopped between any two steps, never half of anything."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from probes.attachments import Attachment
from probes.errors import UserError
from probes.explicit import fetch_memories
from probes.forward import Pass
from probes.memory_bank import open_bank
from probes.writing import Recipe, write_memories
from tests.checkpoints import load_shape, write_checkpoint
from workbench import storage
from workbench.cli import main
from workbench.memory import documents, store
from workbench.memory.chunks import WINDOW, cut_chunks
from workbench.memory.documents import list_files
from workbench.memory.writing import write_documents

SENTENCES = ("The capital of France is Paris.", "Anna lives in Oslo and eats plums.", "The capital of Italy is Rome.")
LONG = " ".join(SENTENCES * 40)


def write(folder: Path, *paths: Path, shape: str = "llama", **choices: Any) -> Any:
    """Write documents with a random model."""
    recipe = Recipe((0, 1), slots=4, **choices)
    return write_documents(load_shape(shape), list_files(paths), folder, recipe, "float32", 3, lambda *_: None)


def read_all(folder: Path) -> dict[str, bytes]:
    """Bytes of every file that is in the bank."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder with one document of each kind, and files that are none."""
    folder = tmp_path / "notes"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_text(LONG)
    (folder / "inner" / "b.md").write_text("# Anna\n\nAnna lives in Oslo.\n")
    (folder / "c.jsonl").write_text('{"id": "rome", "text": "Rome is in Italy."}\n{"text": "Paris is in France."}\n')
    (folder / "d.csv").write_text('id,text\noslo,"Oslo, a city."\n')
    pq.write_table(pa.table({"text": ["Plums are eaten."]}), folder / "e.parquet")
    (folder / ".hidden.txt").write_text("no")
    (folder / "picture.png").write_bytes(b"\0")
    return folder


@pytest.fixture
def bank(tmp_path: Path, notes: Path) -> Path:
    """A bank of the folder."""
    write(tmp_path / "bank", notes)
    return tmp_path / "bank"


@pytest.mark.parametrize("blocks", [[LONG], [LONG[i : i + 7] for i in range(0, len(LONG), 7)], ["x" * 9000]])
def test_chunks_are_the_document(blocks: list[str]) -> None:
    """Chunks lie where they say, keep to the budget, leave out nothing but space, and end with sentences."""
    tokenizer, whole = load_shape("llama").tokenizer, "".join(blocks)
    chunks = list(cut_chunks(iter(blocks), tokenizer, 60))
    end = 0
    for chunk in chunks:
        assert whole[chunk.start : chunk.end] == chunk.text and not whole[end : chunk.start].strip()
        assert 0 < len(chunk.ids) == len(chunk.token_starts) <= 60
        assert list(chunk.ids) == tokenizer(" " + chunk.text, add_special_tokens=False)["input_ids"]
        end = chunk.end
    assert end == len(whole)
    assert all(chunk.text.endswith(".") for chunk in chunks) or "." not in whole


@pytest.mark.parametrize("length", [1, 200, WINDOW - 1])
def test_a_document_within_window_and_budget_is_one_chunk(length: int) -> None:
    """To its last character, though there are sentences at which it could be cut; two more, and it is cut at one."""
    text = (LONG * 2)[: length - 1] + "x"
    tokenizer = load_shape("llama").tokenizer
    assert [chunk.text for chunk in cut_chunks(iter([text]), tokenizer, WINDOW)] == [text]
    parts = [chunk.text for chunk in cut_chunks(iter([text + "yz"]), tokenizer, WINDOW)]
    assert parts == [text + "yz"] if length < 1000 else len(parts) == 2 and parts[0].endswith(".")


def test_a_budget_of_one_token_cuts_at_every_token() -> None:
    """Behind the space that a reference starts with: words that are cut nowhere else."""
    tokenizer = load_shape("llama").tokenizer
    chunks = list(cut_chunks(iter(["xyz"]), tokenizer, 2))
    assert [chunk.text for chunk in chunks] == ["x", "y", "z"] and all(len(chunk.ids) <= 2 for chunk in chunks)


def test_a_character_that_does_not_fit_is_no_endless_search() -> None:
    with pytest.raises(UserError, match="no room for one character"):
        list(cut_chunks(iter(["🙂🙂"]), load_shape("llama").tokenizer, 2))


def test_a_bank_reads_as_what_was_written(bank: Path) -> None:
    """Logits with a memory from the bank are those with the same memory never stored."""
    model = load_shape("llama")
    opened = open_bank(bank, model)
    wanted = write_memories(model, {"rome": "Rome is in Italy."}, layers=(0, 1), slots=4)
    tokens = torch.tensor([model.encode("The capital of Italy is")])
    got, expected = (
        Pass(model, Attachment(fetch_memories(source, model, ("rome",)))).run(tokens) for source in (opened, wanted)
    )
    assert float((got - expected).abs().max()) < 1e-5
    assert "oslo" in opened
    with pytest.raises(UserError, match="another model"):
        open_bank(bank, load_shape("qwen3"))
    with pytest.raises(UserError, match="no explicit memory 'nobody'"):
        opened.select(("nobody",))


def test_writing_again_adds_nothing_and_more_adds_more(bank: Path, notes: Path, tmp_path: Path) -> None:
    before = read_all(bank)
    again = write(bank, notes)
    assert again.written == 0 and again.skipped > len(open_bank(bank)), "the long text repeats itself"
    assert read_all(bank) == before
    (tmp_path / "more.txt").write_text("Anna eats in Rome.")
    assert write(bank, tmp_path / "more.txt").written == 1
    with pytest.raises(UserError, match="was written with scoring softmax, not exp-sum"):
        write(bank, tmp_path / "more.txt", scoring="exp-sum")
    (tmp_path / "other.jsonl").write_text('{"id": "rome", "text": "Another text."}')
    with pytest.raises(UserError, match="the id 'rome' stands for another text"):
        write(bank, tmp_path / "other.jsonl")


@pytest.mark.parametrize("step", range(8))
@pytest.mark.parametrize("new", [True, False])
def test_a_write_stopped_at_any_step_leaves_the_bank_as_it_was(
    step: int, new: bool, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill after the n-th sync (of file or folder): the bank is the old one or the new one, and can be written on."""
    folder = tmp_path / "fresh" if new else bank
    (tmp_path / "more.txt").write_text("Anna eats in Rome.")
    ids = set() if new else set(open_bank(bank).ids.to_pylist())
    count, sync = 0, os.fsync

    def stop(handle: int) -> None:
        nonlocal count
        count += 1
        if count > step:
            raise KeyboardInterrupt
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", stop)
        # A killed process runs no clean-up either.
        patch.setattr(Path, "unlink", lambda *_: None)
        try:
            write(folder, tmp_path / "more.txt")
        except KeyboardInterrupt:
            assert step < 6 + new
    if (folder / "memory.json").is_file():
        now = set(open_bank(folder).ids.to_pylist())
        assert now == ids or len(now - ids) == 1
        assert main(["memory", "verify", str(folder)]) == 0
    done = write(folder, tmp_path / "more.txt")
    assert done.written + done.skipped == 1
    assert set(open_bank(folder).ids.to_pylist()) > ids
    assert len([path for path in folder.iterdir() if path.suffix == ".safetensors"]) == len(
        open_bank(folder).head.parts
    )
    # The folder of a new bank is synced first, before anything is in it.
    assert bool(done.leftovers) == (new <= step < 5 + new)


def test_a_full_disk_is_one_line_and_the_bank_as_before(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_all(bank)
    (tmp_path / "more.txt").write_text("Anna eats in Rome.")

    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", refuse)
    with pytest.raises(UserError, match="No space left on device"):
        write(bank, tmp_path / "more.txt")
    assert read_all(bank) == before


def test_one_process_writes_at_a_time(bank: Path, notes: Path) -> None:
    with store.lock_folder(bank), pytest.raises(UserError, match="another process writes"):
        write(bank, notes)


def flip(path: Path) -> None:
    """Turn one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    """Cut a file in the middle."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["part-000000.safetensors", "part-000000.parquet", "memory.json"])
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_damage_is_found(
    name: str, damage: Callable[[Path], None], bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(bank / name)
    assert main(["memory", "verify", str(bank)]) == 2
    assert name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("empty.txt", b" \n", "is empty"),
        ("binary.md", b"text\0text", "is binary"),
        ("latin.txt", b"caf\xe9 au lait", "is not UTF-8 text"),
        ("picture.png", b"x", "is none of .txt"),
        ("rows.jsonl", b'{"body": "x"}', "has no `text`"),
        ("rows.jsonl", b"{", "line 1 is not JSON"),
        ("rows.jsonl", b'{"text": "half \\ud800"}', "is empty or not text"),
        ("rows.csv", b"a,b\n1,2\n", "has no `text`"),
        ("rows.parquet", b"PAR1", "is not a whole Parquet file"),
        ("long.jsonl", b'{"text": "' + b"x" * 200 + b'"}', "is longer than"),
        ("long.csv", b"text\n" + b"x" * 200, "is longer than"),
        ("long.txt", b"short\n" + b"x" * 200, "has a line longer than"),
    ],
)
def test_a_bad_document_is_one_line_before_any_work(
    name: str, content: bytes, wanted: str, bank: Path, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_all(bank)
    monkeypatch.setattr(documents, "LONGEST_LINE", 100)
    (tmp_path / name).write_bytes(content)
    (tmp_path / "fine.txt").write_text("Anna eats in Rome.")
    with pytest.raises(UserError, match=wanted) as caught:
        write(bank, tmp_path / "fine.txt", tmp_path / name)
    assert name in str(caught.value)
    assert read_all(bank) == before


def test_a_folder_of_other_things_is_left_alone(notes: Path) -> None:
    with pytest.raises(UserError, match="holds other files and no bank"):
        write(notes, notes)


def test_the_commands(tmp_path: Path, notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Write, list, show, delete, verify from the command line."""
    bank = str(tmp_path / "bank")

    def run(*arguments: str) -> Any:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    model = str(write_checkpoint("llama"))
    done = run("memory", "write", str(notes), "--model", model, "--out", bank, "--layers", "0,2", "--slots", "4")
    listed = run("memory", "list", bank, "--limit", "0")
    assert listed["memories"] == len(listed["entries"]) == done["written"] and listed["layers"] == [0, 2]
    shown = run("memory", "show", bank, "rome")
    assert len(shown["kept"]) == 2 * 2 and all(len(row["tokens"]) == 4 for row in shown["kept"])
    assert main(["memory", "show", bank, "rome"]) == 0
    assert capsys.readouterr().out.count("[") == 16
    assert run("memory", "delete", bank, "rome", "--document", "a.txt")["deleted"] > 2
    assert main(["memory", "show", bank, "rome"]) == 2
    assert run("memory", "delete", bank, "--compact")["deleted"] == 0
    assert run("memory", "verify", bank)["whole"]
    left = run("memory", "list", bank)
    assert left["memories"] == 4 and b"Rome is in Italy" not in b"".join(read_all(Path(bank)).values())
    assert [entry["document"] for entry in left["entries"]] == ["c.jsonl:2", "d.csv:1", "e.parquet:1", "inner/b.md"]
