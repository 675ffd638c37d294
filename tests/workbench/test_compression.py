"""A compressed bank reads like any other: codes are FAISS's bytes, decoding without it is FAISS's decoding."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.codebooks import CODEBOOKS, Codebook, unpack
from probes.codes import PAPER_CODE, Code, choose_code, read_code
from probes.errors import UserError
from probes.explicit import fetch_memories
from probes.memory_bank import open_bank
from probes.writing import Recipe
from tests.checkpoints import load_shape
from workbench.cli import main
from workbench.costs.memory3 import CODE_BYTES, SHAPE
from workbench.memory.documents import list_files
from workbench.memory.store import delete_memories
from workbench.memory.writing import write_documents

faiss = pytest.importorskip("faiss")

from workbench.memory.compression import Quantiser, compress_bank  # noqa: E402

WORDS = ("Anna", "Oslo", "plums", "Rome", "France", "eats", "capital", "lives", "Italy", "Paris")


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parts of eighty memories each, one of them deleted, one with an empty slot."""
    folder = tmp_path_factory.mktemp("compressed")
    draw = np.random.default_rng(0)
    for number in range(2):
        rows = [{"id": f"d{number}-{i}", "text": " ".join(draw.choice(WORDS, 12)) + "."} for i in range(80)]
        rows[5]["text"] = "."
        path = folder / f"rows{number}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        recipe = Recipe((0, 2), slots=4)
        write_documents(
            load_shape("llama"), list_files([path]), folder / "bank", recipe, "bfloat16", 20, lambda *_: None
        )
    delete_memories(folder / "bank", ["d0-7"])
    return folder / "bank"


@pytest.fixture
def small(bank: Path, tmp_path: Path) -> Path:
    """Its compressed copy."""
    compress_bank(open_bank(bank), tmp_path / "small", "auto", 0, lambda *_: None)
    return tmp_path / "small"


def test_the_papers_code_is_fourteen_bytes() -> None:
    """Size, spelling and the published ratios, from FAISS itself and from the costs page's constant."""
    code = read_code(PAPER_CODE, SHAPE.d_head)
    index = faiss.index_factory(80, code.factory)
    assert code.bytes == CODE_BYTES == index.sa_code_size() == 14
    assert read_code("OPQ20_80,Residual2x14,PQ8x10", 80) == code and code.name == PAPER_CODE
    assert choose_code(80, 2**18) == code
    sparse = SHAPE.layers * 2 * SHAPE.heads * 128 / (22 * 2 * SHAPE.kv_heads * 8)
    assert sparse == 160 and round(sparse * 2 * 80 / code.bytes, 1) == 1828.6


@pytest.mark.parametrize(("width", "vectors"), [(32, 7040), (8, 300), (64, 20_000), (128, 10**6), (15, 64)])
def test_a_chosen_code_can_be_trained(width: int, vectors: int) -> None:
    """Every choice fits its width, has its bytes as FAISS counts them, and needs no more vectors than there are."""
    code = choose_code(width, vectors)
    assert faiss.index_factory(width, code.factory).sa_code_size() == code.bytes
    assert 16 * code.least <= vectors and read_code(code.name, width) == code


def test_codes_have_up_to_sixteen_bits_and_turn_a_quarter_of_the_width() -> None:
    assert read_code("PQ8x16", 80).fine == 16 and read_code("Residual2x16-PQ8x1", 80).coarse == 16
    for name in ("PQ8x17", "PQ8x0", "Residual2x17-PQ8x8"):
        with pytest.raises(UserError, match="1 to 16 bits"):
            read_code(name, 80)
    assert [choose_code(width, 1000).turns for width in (6, 8, 15, 80)] == [1, 2, 3, 20]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_papers_code_trains_whole() -> None:
    """OPQ20x80-Residual2x14-PQ8x10 on little more than its fewest vectors (2^14): 14 bytes, and what they give back.

    Vectors of 80 numbers that lie near 20 directions, as keys of a head do; held-out ones were not trained on.
    """
    code, draw = read_code(PAPER_CODE, 80), np.random.default_rng(0)
    directions = draw.normal(size=(20, 80))
    drawn = draw.normal(size=(20_000 + 2000, 20)) @ directions + 0.3 * draw.normal(size=(22_000, 80))
    trained, held_out = drawn[:20_000].astype(np.float32), drawn[20_000:].astype(np.float32)
    assert code.least == 2**14 < len(trained)
    quantiser = Quantiser(code, trained, 0)
    tables = quantiser.list_tables()
    book = Codebook(code, tables["rotation"], tables["coarse"], tables["fine"])
    errors = []
    for vectors in (trained, held_out):
        codes = quantiser.encode(vectors)
        assert codes.shape == (len(vectors), 14) and codes.dtype == np.uint8
        decoded = book.decode(torch.from_numpy(codes)).numpy()
        assert np.allclose(decoded, quantiser.index.sa_decode(codes), atol=1e-4)
        errors.append(float(((decoded - vectors) ** 2).sum() / (vectors**2).sum()))
    print(f"squared error / squared length: {errors[0]:.4f} on trained vectors, {errors[1]:.4f} on held-out ones")
    assert 0 < errors[0] < errors[1] < 1


@given(st.integers(1, 16), st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_unpacking_undoes_packing(width: int, numbers: list[int]) -> None:
    wanted = [number % 2**width for number in numbers]
    whole = sum(number << width * place for place, number in enumerate(wanted))
    packed = whole.to_bytes((width * len(wanted) + 7) // 8, "little")
    assert unpack(torch.tensor(list(packed), dtype=torch.uint8), width, len(wanted)).tolist() == wanted


@pytest.mark.parametrize(
    "name",
    [
        "OPQ4x8-Residual2x3-PQ2x5",
        "OPQ2x8-PQ4x3",
        "Residual2x7-PQ2x4",
        "PQ8x8",
        "Residual2x5-PQ1x6",
        # Numbers that cross bytes, as in the paper's code.
        "OPQ4x8-Residual2x9-PQ2x10",
    ],
)
def test_decoding_is_that_of_faiss(name: str) -> None:
    code = read_code(name, 8)
    vectors = np.random.default_rng(1).normal(size=(max(300, code.least + 50), 8)).astype(np.float32)
    quantiser = Quantiser(code, vectors, 0)
    codes, tables = quantiser.encode(vectors), quantiser.list_tables()
    book = Codebook(quantiser.code, tables.get("rotation"), tables.get("coarse"), tables["fine"])
    decoded = book.decode(torch.from_numpy(codes)).numpy()
    assert np.abs(decoded - quantiser.index.sa_decode(codes)).max() < 1e-5


def test_a_compressed_bank_reads_like_any_other(bank: Path, small: Path) -> None:
    """Ids, positions and texts are the same, keys and values near, and a memory attaches to its model."""
    model = load_shape("llama")
    before, after = open_bank(bank, model), open_bank(small, model)
    assert after.ids.to_pylist() == before.ids.drop_null().to_pylist() and len(after) == len(before) > 100
    ids = tuple(after.ids.to_pylist())
    old, new = before.select(ids), after.select(ids)
    assert torch.equal(old.positions, new.positions) and (new.positions < 0).any()
    for side in ("keys", "values"):
        wanted, got = getattr(old, side), getattr(new, side)
        assert float((wanted - got).square().sum() / wanted.square().sum()) < 0.2
        assert not got[new.positions < 0].any()
    assert fetch_memories(after, model, ids[:2]).keys.isfinite().all()
    about = after.describe()
    assert about["compressed"] and about["bytes_a_vector"] == read_code(about["code"], model.d_head).bytes
    assert before.sha256 != after.sha256 and not before.describe()["compressed"]


def test_compressing_twice_gives_the_same_bytes(bank: Path, small: Path, tmp_path: Path) -> None:
    compress_bank(open_bank(bank), tmp_path / "again", "auto", 0, lambda *_: None)
    names = [path.name for path in small.iterdir() if path.is_file()]
    assert len(names) >= 6
    assert all((small / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)


def test_deleting_takes_bytes_off_a_compressed_bank(small: Path) -> None:
    before = open_bank(small).select(("d1-3",))
    delete_memories(small, ["d0-3"], compact=True)
    after = open_bank(small)
    assert "d0-3" not in after and torch.equal(after.select(("d1-3",)).keys, before.keys)
    assert main(["memory", "verify", str(small)]) == 0


def flip(path: Path) -> None:
    """Turn one bit near the end."""
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", [CODEBOOKS, "part-000000.safetensors"])
@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(b"x"), Path.unlink])
def test_damage_is_found(
    name: str, damage: Callable[[Path], None], small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(small / name)
    assert main(["memory", "verify", str(small)]) == 2
    assert name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("PQ8", "no code is called"),
        (PAPER_CODE, "is for vectors of 80 numbers"),
        ("PQ3x4", "cuts 8 numbers into 3"),
        ("PQ8x17", "1 to 16 bits"),
        ("Residual2x14-PQ2x8", "16384 centroids and this bank .* choose OPQ2x8-Residual2x6-PQ1x6, or write more"),
    ],
)
def test_a_code_that_does_not_fit_is_one_line(code: str, wanted: str, bank: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=wanted):
        compress_bank(open_bank(bank), tmp_path / "new", code, 0, lambda *_: None)
    assert not (tmp_path / "new").exists()


def test_too_few_memories_for_any_code() -> None:
    with pytest.raises(UserError, match="12 vectors of 8 numbers a codebook are too few"):
        choose_code(8, 12)
    assert choose_code(8, 32) == Code(8, 2, 1, 1, 1)


def test_a_compressed_bank_is_an_end(bank: Path, small: Path, tmp_path: Path) -> None:
    """It is not compressed again, not added to, and never written over."""
    with pytest.raises(UserError, match="is compressed already"):
        compress_bank(open_bank(small), tmp_path / "new", "auto", 0, lambda *_: None)
    with pytest.raises(UserError, match="holds a bank already"):
        compress_bank(open_bank(bank), small, "auto", 0, lambda *_: None)
    (tmp_path / "more.txt").write_text("Anna eats in Rome.")
    with pytest.raises(UserError, match="is compressed: add to the bank"):
        write_documents(
            load_shape("llama"),
            list_files([tmp_path / "more.txt"]),
            small,
            Recipe((0, 2), slots=4),
            "bfloat16",
            1,
            lambda *_: None,
        )


def test_the_command(bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Compress and list from the command line."""

    def run(*arguments: str) -> Any:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    out = str(tmp_path / "small")
    done = run("memory", "compress", str(bank), "--out", out, "--code", "PQ4x4")
    assert done["code"] == "PQ4x4" and done["bytes_a_vector"] == 2 and done["ratio"] == 8
    listed = run("memory", "list", out, "--limit", "2")
    assert listed["code"] == "PQ4x4" and listed["compressed"] and listed["entries"][0]["text"]
    assert run("memory", "show", out, "d1-3")["text"]
    assert main(["memory", "compress", str(bank), "--out", out]) == 2
