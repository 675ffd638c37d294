"""Search finds what brute force finds; overlap is the definition of the paper, searched exhaustively."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from probes.errors import UserError
from probes.memory_bank import open_bank
from tests.checkpoints import load_shape
from tests.encoders import encode_letters
from workbench.cli import main
from workbench.memory import indexes, search
from workbench.memory.documents import list_files
from workbench.memory.overlap import measure_overlap
from workbench.memory.search import Encoder, open_searcher
from workbench.memory.store import delete_memories
from workbench.memory.writing import write_documents

pytest.importorskip("faiss")


@cache
def is_subsequence(part: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether items occur in order."""
    rest = iter(whole)
    return all(item in rest for item in part)


def overlap_by_definition(text: Sequence[int], reference: Sequence[int]) -> float:
    """Every choice of positions i_1 < ... < i_N of the text, at most 2|r| from first to last, tried out."""
    best = 0
    for size in range(1, min(len(text), len(reference)) + 1):
        for places in combinations(range(len(text)), size):
            if places[-1] - places[0] <= 2 * len(reference):
                items = tuple(text[place] for place in places)
                best = max(best, size if is_subsequence(items, tuple(reference)) else 0)
    return best / len(reference)


@given(st.lists(st.integers(0, 2), max_size=9), st.lists(st.integers(0, 2), min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
def test_overlap_is_the_definition(text: list[int], reference: list[int]) -> None:
    assert measure_overlap(text, reference) == overlap_by_definition(text, reference)


def test_overlap_minds_the_window() -> None:
    """The same two items count together only while they lie within twice the reference's length."""
    assert measure_overlap("a....b", "ab") == 1 / 2
    assert measure_overlap("a...b", "ab") == 1
    assert measure_overlap("", "ab") == measure_overlap("ab", "") == 0


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """Forty short documents."""
    from probes.writing import Recipe

    rows = [
        json.dumps({"id": f"d{i}", "text": f"{'xyz'[i % 3] * (i % 7 + 1)} {'abc' * (i % 5)} {i}"}) for i in range(40)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    files = list_files([tmp_path / "rows.jsonl"])
    write_documents(load_shape("llama"), files, tmp_path / "bank", Recipe((0,), slots=2), "float32", 8, lambda *_: None)
    return tmp_path / "bank"


@pytest.mark.parametrize("limit", [1000, 10])
def test_search_is_brute_force(limit: int, bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact and by lists (all of them read), after a deletion, the second time from what was kept."""
    monkeypatch.setattr(indexes, "EXACT_LIMIT", limit)
    encoder = Encoder("letters", encode_letters)
    delete_memories(bank, ["d3"])
    opened = open_bank(bank)
    query = "zzz abc"
    rows = [json.loads(line) for line in (bank.parent / "rows.jsonl").read_text().splitlines()]
    texts = {row["id"]: row["text"] for row in rows}
    scores = {name: float(encode_letters([text])[0] @ encode_letters([query])[0]) for name, text in texts.items()}
    del scores["d3"]
    for _ in range(2):
        hits = open_searcher(opened, encoder).search(query, 5)
        assert [hit.score for hit in hits] == pytest.approx(sorted(scores.values(), reverse=True)[:5], abs=1e-5)
        assert all(scores[hit.id] == pytest.approx(hit.score, abs=1e-5) for hit in hits)
    assert len(list((bank / "search" / "letters").glob("lists-*"))) == 2 * (limit < 40)
    assert main(["memory", "verify", str(bank)]) == 0


def test_the_search_command(bank: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Hits come with their texts; one that holds the query word for word can be kept out."""
    monkeypatch.setattr(search, "DEFAULT_ENCODER", Encoder("letters", encode_letters))
    assert main(["memory", "search", str(bank), "zzz abcabc 20", "-k", "3", "--json"]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert len(hits) == 3 and all(hit["text"] for hit in hits)
    text = hits[0]["text"]
    assert main(["memory", "search", str(bank), text, "-k", "3", "--overlap", "0.66", "--json"]) == 0
    assert text not in [hit["text"] for hit in json.loads(capsys.readouterr().out)["hits"]]


def draw_clustered(count: int, seed: int) -> np.ndarray:
    """Vectors of length 1 around forty centres."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(40, 16))
    vectors = centres[draw.integers(40, size=count)] + draw.normal(size=(count, 16)) * 0.5
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """Lists of 3,000 vectors that came in three arrays."""
    vectors = draw_clustered(3000, 0)
    indexes.write_lists(tmp_path / "lists", lambda: iter(np.split(vectors, (700, 2000))), 3000, 0, lambda *_: None)
    return tmp_path / "lists"


def test_lists_find_what_brute_force_finds(lists: Path) -> None:
    """Reading every list is exact, row for row; reading a few misses little; the same again gives the same bytes."""
    vectors, queries = draw_clustered(3000, 0), draw_clustered(50, 1)
    index, exact, found = indexes.read_lists(lists, 3000), indexes.ExactIndex(vectors), 0
    every = replace(index, probes=len(index.centroids))
    for query in queries:
        rows, scores = exact.find(query, 5)
        assert rows.tolist() == np.argsort(-(vectors @ query), kind="stable")[:5].tolist()
        assert every.find(query, 5)[0].tolist() == rows.tolist()
        assert every.find(query, 5)[1] == pytest.approx(scores, abs=1e-5)
        found += len(set(index.find(query, 5)[0].tolist()) & set(rows.tolist()))
    assert index.probes < len(index.centroids) and found >= 0.9 * 250
    again = lists.with_name("again")
    indexes.write_lists(again, lambda: iter([vectors]), 3000, 0, lambda *_: None)
    for suffix in (".npy", ".safetensors"):
        assert again.with_suffix(suffix).read_bytes() == lists.with_suffix(suffix).read_bytes()


@pytest.mark.parametrize("name", ["rows", "starts", "centroids"])
def test_lists_of_a_stranger_are_checked(name: str, lists: Path) -> None:
    """Rows beyond the bank, stretches beyond the file and other widths are refused, and so is another bank's index."""
    path = lists.with_suffix(".safetensors")
    tensors = load_file(path)
    tensors[name] = tensors[name][:, :-1].copy() if name == "centroids" else tensors[name] * 7
    path.write_bytes(save(tensors))
    with pytest.raises(UserError, match="is damaged"):
        indexes.read_lists(lists, 3000)


def test_a_pickle_is_never_read(lists: Path) -> None:
    np.save(lists.with_suffix(".npy"), np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="is damaged"):
        indexes.read_lists(lists, 3000)


def test_vectors_of_other_texts_are_made_again(bank: Path) -> None:
    """Vectors that lie there but are not of the bank's texts are not believed."""
    encoder = Encoder("letters", encode_letters)
    first = open_searcher(open_bank(bank), encoder).search("zzz", 1)
    path = next((bank / "search" / "letters").glob("part-*"))
    path.write_bytes(save({"vectors": -load_file(path)["vectors"]}, {"entries_sha256": "0"}))
    assert open_searcher(open_bank(bank), encoder).search("zzz", 1) == first
    right, source = load_file(path)["vectors"], {"entries_sha256": open_bank(bank).head.parts[0].entries_sha256}
    # Of the right texts, but of another precision, number or shape.
    for wrong in (right.astype(np.float64), right[:-1], right[:, 0].copy(), right[:, :, None].copy()):
        path.write_bytes(save({"vectors": wrong}, source))
        with pytest.raises(UserError, match="is damaged"):
            open_searcher(open_bank(bank), encoder)
    path.write_bytes(save({"vectors": right}, source))
    assert open_searcher(open_bank(bank), encoder).search("zzz", 1) == first
    path.write_bytes(b"x")
    with pytest.raises(UserError, match="is damaged"):
        open_searcher(open_bank(bank), encoder)


def test_a_bank_that_is_small_again_is_compared_whole(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists made while it counted as large are not read any more."""
    encoder = Encoder("letters", encode_letters)
    monkeypatch.setattr(indexes, "EXACT_LIMIT", 10)
    assert not isinstance(open_searcher(open_bank(bank), encoder).index, indexes.ExactIndex)
    monkeypatch.setattr(indexes, "EXACT_LIMIT", 40)
    assert isinstance(open_searcher(open_bank(bank), encoder).index, indexes.ExactIndex)
