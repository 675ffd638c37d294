"""Clusters of documents: nested, balanced, routed in k x depth comparisons; what is no corpus is one error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from probes.errors import UserError
from workbench.banks import corpus, encoding
from workbench.banks.clusters import balance_labels, grow_tree, normalise
from workbench.banks.corpus import cluster_documents, cut_windows, load_tree
from workbench.banks.routing import Router, Vectors, load_router
from workbench.cli import main
from workbench.memory.documents import Document, list_files
from workbench.memory.search import Encoder


def draw(count: int, centres: int, seed: int = 0, noise: float = 0.2) -> Vectors:
    """Vectors of length 1 around centres, the first of which takes half of all."""
    generator = np.random.default_rng(seed)
    middle = generator.normal(size=(centres, 12))
    chosen = np.where(generator.random(count) < 0.5, 0, generator.integers(centres, size=count))
    return normalise((middle[chosen] + noise * generator.normal(size=(count, 12))).astype(np.float32))


def encode_letters(texts: Sequence[str]) -> Vectors:
    """A sentence encoder that needs no model: how often each letter occurs."""
    counts = np.array([[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])
    return normalise(counts.astype(np.float32) + 1e-3)


LETTERS = Encoder("letters", encode_letters)


def test_ids_are_nested_and_routing_finds_the_leaf() -> None:
    """The cluster of a level is the deepest one's id divided; routing the fitted vectors gives their own leaves."""
    vectors = draw(3000, 20)
    tree = grow_tree(vectors, branching=4, depth=3, seed=1)
    paths = tree.router.route(vectors)
    assert [len(level) for level in tree.router.centroids] == [4, 16, 64]
    assert (paths[:, 2] == tree.leaves).all()
    for level in (1, 2, 3):
        assert (paths[:, 2] // 4 ** (3 - level) == paths[:, level - 1]).all()
        assert (np.bincount(paths[:, level - 1], minlength=4**level) == tree.counts[level - 1]).all()
        assert np.allclose(np.linalg.norm(tree.router.centroids[level - 1], axis=1), 1, atol=1e-5)


def test_routing_compares_k_times_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    """One text meets branching centroids at each level: 64 with the paper's 16 and 4."""
    generator = np.random.default_rng(0)
    levels = tuple(normalise(generator.normal(size=(16**level, 8)).astype(np.float32)) for level in (1, 2, 3, 4))
    router, compared = Router(levels, 16), 0
    real = Router.compare

    def count(self: Router, vectors: Vectors, level: int, parent: np.ndarray) -> Vectors:  # type: ignore[type-arg]
        nonlocal compared
        found = real(self, vectors, level, parent)
        compared += found.size
        return found

    monkeypatch.setattr(Router, "compare", count)
    vectors = normalise(generator.normal(size=(50, 8)).astype(np.float32))
    paths = router.route(vectors[:1])
    assert compared == 64
    for level, centroids in enumerate(levels):
        children = np.arange(16) + 16 * (paths[0, level - 1] if level else 0)
        assert paths[0, level] == children[((centroids[children] - vectors[0]) ** 2).sum(axis=1).argmin()]
    assert (router.route(vectors)[:1] == paths).all(), "a text is routed alone as among others"


def test_a_blocked_subtree_gives_the_next_best() -> None:
    vectors = draw(500, 6)
    router = grow_tree(vectors, branching=4, depth=2).router
    best = router.route(vectors)
    other = router.route(vectors, blocked=best[:, 0])
    assert (other[:, 0] != best[:, 0]).all()
    distances = ((vectors[:, None] - router.centroids[0]) ** 2).sum(-1)
    assert (other[:, 0] == distances.argsort(axis=1)[:, 1]).all()
    assert (other[:, 1] // 4 == other[:, 0]).all()


def test_fitting_holds_clusters_in_balance() -> None:
    """An oversize cluster is split evenly with the smallest; half of all vectors in one heap do not stay together."""
    labels, split = balance_labels(np.zeros(1000, dtype=np.int64), 4, np.random.default_rng(0))
    assert split and np.bincount(labels, minlength=4).max() <= 1.5 / 4 * 1000 + 60
    even, split = balance_labels(np.arange(1000) % 4, 4, np.random.default_rng(0))
    assert not split and (even == np.arange(1000) % 4).all()
    tree = grow_tree(draw(8000, 8), branching=4, depth=1)
    assert tree.largest_share[0] < 0.5, "half of the vectors lie around one centre"
    again = grow_tree(draw(8000, 8), branching=4, depth=1)
    assert (again.leaves == tree.leaves).all(), "the same seed gives the same tree"


def test_clusters_without_vectors_are_counted_and_never_reached() -> None:
    """Fewer vectors than leaves: children repeat their parent, every id exists, and empty ones are said."""
    vectors = draw(40, 3)
    tree = grow_tree(vectors, branching=4, depth=4)
    assert tree.empty[3] > 200 and tree.counts[3].sum() == 40
    reached = np.unique(tree.router.route(draw(500, 3, seed=5))[:, 3])
    assert set(reached) <= set(np.flatnonzero(tree.counts[3]))
    same = grow_tree(np.repeat(vectors[:1], 30, axis=0), branching=4, depth=2)
    assert same.counts[0].sum() == 30, "thirty times the same text is no reason to fail"


def write_corpus(folder: Path, count: int = 30) -> Path:
    folder.mkdir()
    for index in range(count):
        (folder / f"{index:02}.txt").write_text("aeiou"[index % 5] * (10 + index) + " " + "xyz"[index % 3] * 8)
    return folder


def test_documents_become_a_tree_on_disk(tmp_path: Path) -> None:
    """Windows cover the documents without overlap; what was written opens, and routes as it did."""
    files = list_files([write_corpus(tmp_path / "docs")])
    tree, about = cluster_documents(files, tmp_path / "tree", LETTERS, branching=3, depth=2, window=16)
    router, read, windows = load_tree(tmp_path / "tree")
    assert read == about and about["documents"] == 30 and about["windows"] == windows.num_rows > 30
    rows = windows.to_pylist()
    texts = [(tmp_path / "docs" / row["document"]).read_text()[row["start"] : row["end"]] for row in rows]
    assert (router.route(encode_letters(texts))[:, 1] == tree.leaves).all()
    assert [row["leaf"] for row in rows] == tree.leaves.tolist()
    ends: dict[str, int] = {}
    for row in rows:
        assert row["start"] == ends.get(row["document"], 0) and row["end"] - row["start"] <= 16
        ends[row["document"]] = row["end"]


def test_windows_do_not_depend_on_blocks() -> None:
    whole = list(cut_windows(iter([Document("a", iter(["abcdefghij   "]))]), 4))
    assert whole == list(cut_windows(iter([Document("a", iter("abcdefghij   "))]), 4))
    assert [window.text for window in whole] == ["abcd", "efgh", "ij  "]


def test_what_is_no_corpus_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One document, too few windows, a folder in use, a damaged tree, a router of another width."""
    monkeypatch.setattr(encoding, "DEFAULT_ENCODER", LETTERS)
    encoding.open_encoder.cache_clear()
    docs = write_corpus(tmp_path / "docs")
    one = tmp_path / "one.txt"
    one.write_text("a" * 4000)
    out = str(tmp_path / "tree")
    for arguments, message in (
        ([str(one), "--window", "20"], "1 document is no corpus"),
        ([str(docs)], "cannot be split into 64"),
        ([str(docs), "--branching", "1"], "make no tree"),
        ([str(docs), "--window", "0"], "--window"),
        ([str(tmp_path / "none")], "no file"),
    ):
        extra = ["--branching", "64"] if arguments == [str(docs)] else []
        assert main(["bank", "cluster", *arguments, *extra, "--out", out]) == 2
        assert message in capsys.readouterr().err
        assert not Path(out).exists()
    small = ["bank", "cluster", str(docs), "--branching", "3", "--depth", "2", "--out", out]
    assert main([*small, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["windows"] == 30 and printed["comparisons"] == 6 and sum(printed["largest"]) > 0
    assert main(small) == 2 and "exists already" in capsys.readouterr().err
    with pytest.raises(UserError, match="width 26"):
        load_tree(Path(out))[0].route(np.zeros((1, 5), np.float32))
    with pytest.raises(UserError, match="not 4 centroids"):
        load_router(Path(out), 4, 2)
    (Path(out) / corpus.WINDOWS).write_bytes(b"no table")
    with pytest.raises(UserError, match="not a whole tree"):
        load_tree(Path(out))
    encoding.open_encoder.cache_clear()
