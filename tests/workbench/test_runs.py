"""A run's folder: what comes back is what was written, and anything cut, edited or foreign is refused by name."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuits.graph import Plan
from probes.errors import UserError
from workbench.exports_json import read_json, write_json
from workbench.run_index import list_entries
from workbench.runs import FILES, Run, encode_run, load_run, pack_arrays, save_run, unpack_arrays


def edit(folder: Path, **changes: Any) -> None:
    """Change top-level keys of run.json; a value of None removes the key."""
    path = folder / "run.json"
    about = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            del about[key]
        else:
            about[key] = value
    path.write_text(json.dumps(about))


def test_a_loaded_run_equals_the_saved_one(run: Run, run_folder: Path) -> None:
    loaded = load_run(run_folder)
    assert loaded.circuit == run.circuit
    np.testing.assert_array_equal(loaded.scores.edges, run.scores.edges)
    np.testing.assert_array_equal(loaded.scores.nodes, run.scores.nodes)
    np.testing.assert_array_equal(loaded.recording.context, run.recording.context)
    np.testing.assert_array_equal(loaded.recording.memory, run.recording.memory)
    assert {key: loaded.about[key] for key in run.about} == run.about
    assert loaded.tokens == run.tokens
    assert loaded.title == "The capital of Norland is → Oskarville"


def test_the_folder_holds_three_files_and_no_leftover(run_folder: Path) -> None:
    assert sorted(path.name for path in run_folder.iterdir()) == sorted(FILES)
    assert [path.name for path in run_folder.parent.iterdir()] == [run_folder.name]


def test_equal_runs_have_equal_bytes(build_run: Any) -> None:
    assert encode_run(build_run()) == encode_run(build_run())
    assert encode_run(build_run()) != encode_run(build_run(seed=1))


def test_saving_a_loaded_run_gives_the_same_bytes(run: Run, run_folder: Path) -> None:
    assert encode_run(load_run(run_folder)) == encode_run(run)


def test_a_run_without_memories_is_kept(build_run: Any, tmp_path: Path) -> None:
    bare = build_run(plan=Plan(layers=2, heads=2, kv_heads=2))
    save_run(bare, tmp_path / "bare")
    loaded = load_run(tmp_path / "bare")
    assert loaded.recording.memory.size == 0
    assert loaded.circuit == bare.circuit


def test_an_existing_folder_is_not_overwritten(run: Run, run_folder: Path) -> None:
    before = (run_folder / "run.json").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        save_run(run, run_folder)
    assert (run_folder / "run.json").read_bytes() == before


def test_a_number_that_is_not_finite_is_not_written(run: Run, tmp_path: Path) -> None:
    broken = dataclasses.replace(run, about={**run.about, "faithfulness": {"normalised": float("nan")}})
    with pytest.raises(ValueError, match="JSON compliant"):
        save_run(broken, tmp_path / "broken")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(run_folder: Path, name: str) -> None:
    (run_folder / name).unlink()
    with pytest.raises(UserError, match=name):
        load_run(run_folder)


@pytest.mark.parametrize("name", ["scores.npz", "recording.npz"])
def test_a_changed_array_file_is_refused(run_folder: Path, name: str) -> None:
    data = bytearray((run_folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (run_folder / name).write_bytes(bytes(data))
    with pytest.raises(UserError, match=f"{name}.*SHA-256"):
        load_run(run_folder)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("array", ["edges", "nodes", "context"])
def test_arrays_that_are_not_finite_are_refused(run: Run, tmp_path: Path, array: str, value: float) -> None:
    """Even with the hash of what was written: another program may have written it."""
    part = run.recording if array == "context" else run.scores
    bad = getattr(part, array).copy()
    bad.flat[bad.size // 2] = value
    field = "recording" if array == "context" else "scores"
    save_run(dataclasses.replace(run, **{field: dataclasses.replace(part, **{array: bad})}), tmp_path / "bad")
    with pytest.raises(UserError, match=rf"{field}\.npz is not finite"):
        load_run(tmp_path / "bad")


def test_a_cut_off_run_json_is_refused(run_folder: Path) -> None:
    path = run_folder / "run.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="is not JSON"):
        load_run(run_folder)


@pytest.mark.parametrize("text", ["[]", "null", '"run"', "{}", '{"format": "other"}'])
def test_foreign_json_is_refused(run_folder: Path, text: str) -> None:
    (run_folder / "run.json").write_text(text)
    with pytest.raises(UserError, match="not a run of this workbench"):
        load_run(run_folder)


def test_a_later_version_is_refused(run_folder: Path) -> None:
    edit(run_folder, version=3)
    with pytest.raises(UserError, match="version 3"):
        load_run(run_folder)


@pytest.mark.parametrize("key", ["circuit", "files"])
def test_a_missing_part_is_refused(run_folder: Path, key: str) -> None:
    edit(run_folder, **{key: None})
    with pytest.raises(UserError, match=f"not a whole run.*{key}"):
        load_run(run_folder)


def test_pickled_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        pack_arrays({"a": np.array([{}], dtype=object)})
    assert unpack_arrays(pack_arrays({"a": np.arange(3)}))["a"].tolist() == [0, 1, 2]


def test_listing_leaves_out_what_is_no_run(run: Run, run_folder: Path) -> None:
    save_run(run, run_folder.parent / "another")
    (run_folder.parent / "empty").mkdir()
    (run_folder.parent / ".hidden").mkdir()
    (run_folder.parent / ".hidden" / "run.json").write_text("{}")
    (run_folder.parent / "foreign").mkdir()
    (run_folder.parent / "foreign" / "run.json").write_text("{}")
    assert [entry.name for entry in list_entries(run_folder.parent)] == ["another", run_folder.name]
    assert list_entries(run_folder.parent / "nowhere") == []


def test_the_document_names_every_key(run_folder: Path) -> None:
    document = (Path(__file__).parents[2] / "docs" / "run-format.md").read_text()
    about = json.loads((run_folder / "run.json").read_text())
    keys = [
        *about,
        *about["circuit"],
        *about["pairs"][0],
        *about["faithfulness"],
        *about["settings"],
        *about["question"],
    ]
    assert [key for key in keys if f"`{key}`" not in document] == []


def make_first_version(document: dict[str, Any]) -> dict[str, Any]:
    """A run's or circuit's document as the first version wrote it: one pair, answers of one token."""
    (pair,) = document.pop("pairs")
    for name in ("answer", "foil"):
        del pair[f"{name}_tokens"]
        (pair[f"{name}_id"],) = pair.pop(f"{name}_ids")
    for name in ("summed", "selection"):
        del document[name]
    return {**document, "pair": pair, "version": 1}


def test_runs_and_circuits_of_the_first_version_still_load(run: Run, run_folder: Path) -> None:
    path = run_folder / "run.json"
    path.write_text(json.dumps(make_first_version(json.loads(path.read_text()))))
    loaded = load_run(run_folder)
    assert loaded.pairs == run.pairs
    assert (loaded.circuit, loaded.tokens, loaded.title) == (run.circuit, run.tokens, run.title)
    first = make_first_version(json.loads(write_json(run)))
    found = read_json(json.dumps(first).encode())
    assert (found.circuit, found.tokens) == (run.circuit, run.tokens)
