"""What fuzzing has found, case by case: each was a traceback, a hang or memory without end, and is now one line."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from circuits.graph import MOST_PAIRS, Plan, can_see, count_ends, wire
from probes.bank import load_bank
from probes.blocks import Design, Widths
from probes.descriptions import seal_description
from probes.errors import UserError
from probes.facts import build_fact, load_facts, read_rows
from probes.memory_bank import find_faults, open_bank
from probes.memory_format import read_entries
from probes.models import load_model
from tests.checkpoints import load_shape, write_checkpoint
from tests.conftest import PLAN, make_run
from tests.fuzz.banks import make_router, write_compressed, write_explicit, write_parametric, write_tree
from tests.fuzz.files import encode_foreign
from tests.fuzz.tables import FACT, encode_parquet
from tests.pages.measured import FOUND
from tests.sweep_tables import write_table
from workbench.banks.corpus import load_tree
from workbench.banks.routing import check_widths
from workbench.drafts import load_draft, save_draft
from workbench.formats.eap import encode_eap
from workbench.importing import read_circuit
from workbench.measurements import Measurement, open_measurement, read_measurement, save_measurement
from workbench.memory.documents import count_characters, list_files
from workbench.model_checks import inspect_folder
from workbench.placement import read_places
from workbench.run_index import list_entries
from workbench.runs import encode_run, load_run, pack_arrays, save_run
from workbench.size_curves import SizeCurve, load_curve, save_curve
from workbench.sweeps import queries
from workbench.sweeps.parts import load_table
from workbench.view_files import SavedView, load_view, read_views, save_view

DEEP = b'{"a":' * 100_000


def edit_run(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A saved run whose run.json was changed."""
    save_run(make_run(edges=8, parts=1), folder)
    about = json.loads((folder / "run.json").read_bytes())
    change(about)
    (folder / "run.json").write_text(json.dumps(about))
    return folder


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no pairs": lambda about: about.pop("pairs"),
    "pairs that are text": lambda about: about.update(pairs="x"),
    "a method that is a list": lambda about: about["circuit"].update(method=["eap"]),
    "memories that are text": lambda about: about["memories"].update(explicit="x"),
    "an edge from nowhere": lambda about: about["circuit"]["edges"][0].update(writer="m9@99"),
    "a score that is infinite": lambda about: about["circuit"]["edges"][0].update(score=1e999),
    "layers without end": lambda about: about["circuit"]["plan"].update(layers=10**12),
    "a memory layer beyond": lambda about: about["circuit"]["plan"].update(explicit_layers=[99]),
    "a probability that is text": lambda about: about["conditions"][0]["answer"].update(probability="much"),
    "a method of parts that is a list": lambda about: about["parts"].update(method=["eap"]),
    "a version that is long": lambda about: about.update(version="x" * 5000),
}


@pytest.mark.parametrize("name", CHANGES)
def test_runs_that_lie(tmp_path: Path, name: str) -> None:
    folder = edit_run(tmp_path / "run", CHANGES[name])
    with pytest.raises(UserError) as raised:
        load_run(folder)
    assert len(str(raised.value)) < 1000


def test_arrays_that_are_no_scores_of_the_graph(tmp_path: Path) -> None:
    files = encode_run(make_run(edges=8))
    other = encode_run(make_run(tokens=("a", "b"), edges=8))
    cut = files["scores.npz"][:200] + b"\xff" * 8 + files["scores.npz"][208:]
    for number, data in enumerate((other["scores.npz"], cut, b"", b"PK\x05\x06" + b"\0" * 18)):
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        about = json.loads(files["run.json"])
        about["files"]["scores.npz"] = hashlib.sha256(data).hexdigest()
        for name, content in (files | {"run.json": json.dumps(about).encode(), "scores.npz": data}).items():
            (folder / name).write_bytes(content)
        with pytest.raises(UserError, match="not a whole run"):
            load_run(folder)


def test_arrays_that_unpack_to_more_than_their_run_has(tmp_path: Path) -> None:
    """Sixty-four million zeros are few bytes; a header that says terabytes is fewer."""
    files, folder = encode_run(make_run(edges=8)), tmp_path / "run"
    bomb = pack_arrays({"edges": np.zeros(1 << 24, np.float32), "nodes": np.zeros(1, np.float32)})
    lie = pack_arrays({"edges": np.zeros((0, 1 << 30, 1 << 30), np.float32), "nodes": np.zeros(1, np.float32)})
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(lie)) as archive, zipfile.ZipFile(buffer, "w") as other:
        other.writestr("edges.npy", archive.read("edges.npy").replace(b"(0, ", b"(9, "))
    folder.mkdir()
    for data, reason in ((bomb, "at most"), (buffer.getvalue(), "no more than the")):
        about = json.loads(files["run.json"])
        about["files"]["scores.npz"] = hashlib.sha256(data).hexdigest()
        for name, content in (files | {"run.json": json.dumps(about).encode(), "scores.npz": data}).items():
            (folder / name).write_bytes(content)
        tracemalloc.start()
        with pytest.raises(UserError, match=reason):
            load_run(folder)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 24


def test_half_a_character_in_a_run_and_in_a_view(tmp_path: Path) -> None:
    """JSON's escapes can hold it, UTF-8 cannot: what is written of it again is its escape."""
    folder = edit_run(tmp_path / "runs" / "run", lambda about: about["pairs"][0].update(clean="\ud83d"))
    assert [entry.name for entry in list_entries(tmp_path / "runs")] == ["run"]
    run = load_run(folder)
    number = save_view(folder, SavedView(5, title="\ud83d"))
    assert read_views(folder)[number]["title"] == load_view(folder, number, run.circuit)[0].title == "\ud83d"
    save_draft(folder, "0" * 12, SavedView(5, title="\ud83d"))
    assert load_draft(folder, "0" * 12, run.circuit)[0].title == "\ud83d"
    save_measurement(Measurement("lens", FOUND["lens"], "\ud83d"), tmp_path / "lens.json")
    assert open_measurement(tmp_path / "lens.json").command == "\ud83d"


def test_json_deeper_than_the_parser_goes(tmp_path: Path) -> None:
    folder = edit_run(tmp_path / "runs" / "run", lambda about: None)
    (folder / "view.json").write_bytes(DEEP)
    with pytest.raises(UserError, match="nested too deep"):
        read_views(folder)
    (folder / "run.json").write_bytes(DEEP)
    (tmp_path / "runs" / ".runs.json").write_bytes(DEEP)
    with pytest.raises(UserError, match="nested too deep"):
        load_run(folder)
    assert list_entries(tmp_path / "runs") == []


def test_marks_of_another_tool_that_are_no_lists() -> None:
    graph = encode_foreign(make_run(edges=8))
    graph["qParams"] |= {"pinnedIds": 5, "supernodes": 7}
    assert read_circuit(json.dumps(graph).encode()).pinned == ()


def test_the_table_of_who_sees_whom_is_that_of_the_single_pairs() -> None:
    for plan in (PLAN, Plan(2, 2, 1, True), Plan(3, 2, 2, False, (1,), 2, (0, 2), 2, (1,), 3, (2,), 2)):
        wiring = wire(plan)
        assert count_ends(plan) == wiring.visible.shape
        wanted = [[can_see(w, r.component, plan.parallel) for r in wiring.readers] for w in wiring.writers]
        assert wiring.visible.tolist() == wanted
    assert np.prod(count_ends(Plan(126, 128, 8))) < MOST_PAIRS


def test_files_without_end(tmp_path: Path) -> None:
    """Links to a device, which has no end, and to nowhere."""
    model = load_shape("llama")
    write_explicit(tmp_path / "memory", model)
    write_parametric("ffn")(tmp_path / "bank", model)
    for path, read in ((tmp_path / "memory" / "memory.json", open_bank), (tmp_path / "bank" / "bank.json", load_bank)):
        path.unlink()
        path.symlink_to("/dev/zero")
        with pytest.raises(UserError, match="not a file"):
            read(path.parent)
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="cannot read"):
        count_characters(list_files([tmp_path / "documents"]))


def test_banks_that_no_model_has() -> None:
    with pytest.raises(UserError, match="no bank has as many clusters"):
        Design("ffn", Widths(8, 2, 2, 4), (0,), (1, 1), branching=10**20)
    router = make_router()
    with pytest.raises(UserError, match="widths"):
        check_widths(Path("router"), (router.centroids[0], router.centroids[1][:, :2]), None, None)
    with pytest.raises(UserError, match="not all finite"):
        check_widths(Path("router"), (router.centroids[0] * np.float32("nan"),), None, None)


def test_facts_of_another_kind(tmp_path: Path) -> None:
    for name, value in (("cluster_path", 3), ("paraphrases", [1]), ("bucket", "often"), ("prompt", ["a"])):
        with pytest.raises(UserError, match=name):
            build_fact({**FACT, name: value}, {})
    assert build_fact({**FACT, "object": 5, "leaf_hit": "true"}, {}).object == "5"
    (tmp_path / "facts.parquet").write_bytes(encode_parquet([FACT]))
    (tmp_path / "documents.parquet").write_bytes(encode_parquet([{"id": "d-1"}]))
    assert load_facts(tmp_path)[0].document == ""
    (tmp_path / "long.csv").write_text(f"id\n{'x' * 200_000}\n")
    with pytest.raises(UserError, match="cannot read the table"):
        read_rows(tmp_path / "long.csv")
    (tmp_path / "part-000000.parquet").write_bytes(b"PAR1" * 9)
    with pytest.raises(UserError, match="cannot be read"):
        load_table(tmp_path)


@pytest.mark.parametrize("positions", [0, -128])
def test_a_checkpoint_without_positions(tmp_path: Path, positions: int) -> None:
    folder = tmp_path / "model"
    shutil.copytree(write_checkpoint("llama"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": positions}))
    with pytest.raises(UserError, match="positions"):
        load_model(str(folder), device="cpu")


def test_a_lens_table_that_is_no_grid() -> None:
    for name in ("best", "answer_rank"):
        found = copy.deepcopy(FOUND["lens"])
        found["everywhere"][name][0].append(found["everywhere"][name][0][0])
        with pytest.raises(UserError, match=rf"everywhere\.{name}"):
            read_measurement(json.dumps(found).encode())


def test_a_table_of_texts_that_are_no_utf8(tmp_path: Path) -> None:
    rows = [{"fact": "a-fact", "row": "reason", "reason": "why not"}]
    (tmp_path / "part-000000.parquet").write_bytes(encode_parquet(rows).replace(b"a-fact", b"a-\xff\xffct"))
    with pytest.raises(UserError):
        read_places(tmp_path)


def change_sealed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a bank's head and seal it again."""
    about = json.loads(path.read_bytes())
    about.pop("sha256")
    change(about)
    path.write_bytes(seal_description(about))


HEADS: dict[str, Callable[[dict[str, Any]], object]] = {
    "deleted rows that are not there": lambda about: about["parts"][0].update(deleted=[1000]),
    "heads without end": lambda about: about.update(kv_heads=10**20),
    "a precision that is long": lambda about: about.update(precision="x" * 10_000),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_of_memories_that_lie(tmp_path: Path, name: str) -> None:
    write_explicit(tmp_path / "memory", load_shape("llama"))
    change_sealed(tmp_path / "memory" / "memory.json", HEADS[name])
    with pytest.raises(UserError, match="not a whole head") as raised:
        open_bank(tmp_path / "memory")
    assert len(str(raised.value)) < 500


def test_entries_of_other_kinds_than_a_memorys(tmp_path: Path) -> None:
    write_explicit(tmp_path / "memory", load_shape("llama"))
    part, path = open_bank(tmp_path / "memory").head.parts[0], tmp_path / "memory" / "part-000000.parquet"
    table = read_entries(tmp_path / "memory", part)
    texts = table.column("text").cast("binary")
    for name, wrong in (("text", texts), ("id", pa.array([1] * part.rows))):
        pq.write_table(table.set_column(table.column_names.index(name), name, wrong), path)
        with pytest.raises(UserError, match="damaged"):
            read_entries(tmp_path / "memory", part)


def test_positions_that_are_no_whole_numbers(tmp_path: Path) -> None:
    write_explicit(tmp_path / "memory", load_shape("llama"))
    path = tmp_path / "memory" / "part-000000.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "positions": tensors["positions"].float()}, path)
    assert [fault for fault in find_faults(tmp_path / "memory") if "no whole numbers" in fault]


def test_a_tree_without_levels(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", load_shape("llama"))
    path = tmp_path / "tree" / "tree.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"depth": 0}))
    with pytest.raises(UserError, match="0 levels"):
        load_tree(tmp_path / "tree")


def test_a_curve_with_a_word_for_a_number(tmp_path: Path) -> None:
    save_curve(tmp_path, SizeCurve((1, 2), (0.5, 1.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), 1, 0))
    curve = json.loads((tmp_path / "curve.json").read_bytes())
    (tmp_path / "curve.json").write_text(json.dumps(curve | {"faithfulness": ["long" * 10_000, 1.0]}))
    with pytest.raises(UserError) as raised:
        load_curve(tmp_path)
    assert len(str(raised.value)) < 500


def test_an_edge_into_a_layer_that_the_model_has_not() -> None:
    document = encode_eap(make_run(edges=20))[0]
    inside = {"score": 1.0, "in_graph": True}
    for name in ("input->a3.h0<k>", "input->m3", "m2->a3.h1<q>"):
        with pytest.raises(UserError, match="a model of its cfg has not"):
            read_circuit(json.dumps(document | {"edges": {name: inside}}).encode())
    read_circuit(json.dumps(document | {"edges": {"m2->logits": inside, "input->a2.h0<k>": inside}}).encode())


def test_entries_whose_columns_have_no_names(tmp_path: Path) -> None:
    write_explicit(tmp_path / "memory", load_shape("llama"))
    path = tmp_path / "memory" / "part-000000.parquet"
    path.write_bytes(path.read_bytes().replace(b"sha256", b"sha\xff\xff6"))
    with pytest.raises(UserError, match="damaged"):
        read_entries(tmp_path / "memory", open_bank(tmp_path / "memory").head.parts[0])


def test_a_message_says_which_file_and_what_to_do_however_long_what_others_say_is(tmp_path: Path) -> None:
    write_compressed(tmp_path / "memory", load_shape("llama"))
    path = tmp_path / "memory" / "codebooks.safetensors"
    header = json.dumps({"keys": "long" * 25_000}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(
        UserError, match=r"codebooks\.safetensors is damaged(?s:.*): compress the bank again$"
    ) as raised:
        open_bank(tmp_path / "memory")
    assert len(str(raised.value)) < 1300


def test_a_sweep_of_texts_that_are_no_utf8(tmp_path: Path) -> None:
    part = write_table(tmp_path / "sweeps" / "first") / "part-000000.parquet"
    part.write_bytes(part.read_bytes().replace(b"capital", b"c\xff\xffital"))
    connection = queries.open_sweeps(tmp_path / "sweeps", threads=1)
    with pytest.raises(UserError), contextlib.closing(connection):
        queries.list_values(connection)


@pytest.mark.parametrize("named", [0.5, {}, "x", [], None])
def test_a_configuration_whose_architectures_are_no_list(tmp_path: Path, named: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": named, "model_type": "llama"}))
    assert next(inspect_folder(tmp_path)).text.endswith("llama, ? layers")
