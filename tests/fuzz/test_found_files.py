"""What fuzzing has found in files and folders from elsewhere: tables, tensors, banks, graphs of other tools."""

from __future__ import annotations

import copy
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from circuits.graph import Plan, split_node
from probes.bank import load_bank
from probes.errors import UserError
from probes.facts import read_rows
from probes.memory_bank import open_bank
from probes.memory_format import LONGEST_ID, read_entries, read_head
from probes.memory_needs import estimate_need
from probes.parquet_tables import read_table
from probes.shards import open_shard
from probes.tensor_headers import read_header
from tests.checkpoints import load_shape
from tests.conftest import PLAN, make_run
from tests.fuzz.banks import write_explicit, write_first_memories, write_parametric, write_tree
from tests.fuzz.files import encode_foreign
from tests.fuzz.tables import FACT, encode_parquet
from tests.fuzz.test_found import change_sealed
from tests.pages.measured import FOUND
from tests.studies import make_study
from tests.sweep_tables import write_table
from workbench.banks.corpus import load_tree
from workbench.costs.shapes import read_shape
from workbench.figures.kinds import Wish, choose_head, figure_specificity
from workbench.formats.eap import count_all_edges, encode_eap, list_all_edges, write_eap
from workbench.importing import read_circuit
from workbench.ledgers.placing import read_usage
from workbench.measurements import read_measurement
from workbench.memory.documents import count_characters
from workbench.memory.indexes import read_lists
from workbench.runs import unpack_arrays
from workbench.size_curves import SizeCurve, load_curve, save_curve
from workbench.stored import list_ids, read_width
from workbench.studies import find_study, load_study, save_study
from workbench.sweeps import queries
from workbench.sweeps.parts import load_table


def link_folder(path: Path) -> None:
    """A link to a folder of whole tables in a table's place."""
    whole = path.parent / "elsewhere"
    whole.mkdir()
    for name in ("a.parquet", "b.parquet"):
        (whole / name).write_bytes(encode_parquet([FACT]))
    path.unlink(missing_ok=True)
    path.symlink_to(whole)


def draw_nothing(name: str, done: int, total: int) -> None:
    """Progress that nobody sees."""


READERS: dict[str, Callable[[Path], object]] = {
    "facts": read_rows,
    "a specificity table": lambda path: figure_specificity([(path, None)], Wish(), draw_nothing),
    "documents": lambda path: count_characters([(path, path.name)]),
    "a sweep as one table": lambda path: load_table(path.parent),
    "ids of a bank": lambda path: list_ids(path.parent, [{"name": path.stem, "deleted": []}]),
    "any": read_table,
}


@pytest.mark.parametrize("name", READERS)
def test_a_table_that_is_a_link_to_a_folder(tmp_path: Path, name: str) -> None:
    """Arrow reads all files below a folder as one table."""
    path = tmp_path / "part-000000.parquet"
    link_folder(path)
    with pytest.raises(UserError, match=r"part-000000\.parquet is not a file"):
        READERS[name](path)


def test_tables_of_banks_and_sweeps_that_are_links_to_folders(tmp_path: Path) -> None:
    write_explicit(tmp_path / "memory", load_shape("llama"))
    write_tree(tmp_path / "tree", load_shape("llama"))
    part = open_bank(tmp_path / "memory").head.parts[0]
    for path in (tmp_path / "memory" / part.entries, tmp_path / "tree" / "windows.parquet"):
        link_folder(path)
    with pytest.raises(UserError, match="not a file"):
        read_entries(tmp_path / "memory", part)
    with pytest.raises(UserError, match="not a file"):
        load_tree(tmp_path / "tree")
    link_folder(write_table(tmp_path / "sweeps" / "first") / "part-000000.parquet")
    with pytest.raises(UserError, match="not a file"):
        queries.open_sweeps(tmp_path / "sweeps", threads=1)


def test_a_table_that_is_a_link_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_bytes(encode_parquet([FACT]))
    (tmp_path / "link.parquet").symlink_to(tmp_path / "table.parquet")
    assert read_rows(tmp_path / "link.parquet") == read_rows(tmp_path / "table.parquet")
    shutil.copytree(write_table(tmp_path / "sweeps" / "first"), tmp_path / "kept")
    (tmp_path / "sweeps" / "first" / "part-000000.parquet").unlink()
    (tmp_path / "sweeps" / "first" / "part-000000.parquet").symlink_to(tmp_path / "kept" / "part-000000.parquet")
    assert load_table(tmp_path / "sweeps" / "first").num_rows == load_table(tmp_path / "kept").num_rows
    queries.open_sweeps(tmp_path / "sweeps", threads=1).close()


def give_probability(value: object) -> bytes:
    """A graph of another tool whose outputs have this probability."""
    graph = encode_foreign(make_run(edges=8))
    for node in graph["nodes"]:
        node.update(feature_type="logit", token_prob=value)
    return json.dumps(graph).encode()


@pytest.mark.parametrize("value", ["likely", [1], {"a": 1}, 10**400, True])
def test_a_probability_that_is_no_number(value: Any) -> None:
    with pytest.raises(UserError, match=r"nodes\[0\]\.token_prob"):
        read_circuit(give_probability(value))
    assert read_circuit(give_probability(0.5)).kind == "attribution-graph"


def test_numbers_of_other_tools_that_no_float_holds() -> None:
    graph, eap = encode_foreign(make_run(edges=8)), encode_eap(make_run(edges=8))[0]
    link = {**graph["links"][0], "weight": 10**400}
    edges = {"input->logits": {"score": -(10**400), "in_graph": True}}
    nodes = eap["nodes"] | {"input": {"score": 10**400, "in_graph": True}}
    for document in (graph | {"links": [link]}, eap | {"edges": edges}):
        with pytest.raises(UserError, match="larger than any number"):
            read_circuit(json.dumps(document).encode())
    read_circuit(json.dumps(eap | {"nodes": nodes}).encode())


def test_names_of_more_digits_than_python_reads() -> None:
    long, run = "9" * 5000, make_run(edges=8)
    graph, eap = encode_foreign(run), encode_eap(run)[0]
    graph["nodes"][0].update(layer=long, feature_type="cross layer transcoder")
    edges = {f"a{long}.h0->logits": {"score": 1.0, "in_graph": True}}
    with pytest.raises(UserError, match="no model is so deep"):
        read_circuit(json.dumps(graph).encode())
    with pytest.raises(UserError, match="unknown component"):
        read_circuit(json.dumps(eap | {"edges": edges}).encode())
    for name in (f"a0.h{long}", "a0.h2.0", "a0.2.0"):
        with pytest.raises(UserError, match="unknown component"):
            choose_head(run, name)
    with pytest.raises(UserError, match="not a node id"):
        split_node(f"m0@{long}")


@pytest.mark.parametrize("name", ["layer", "head"])
def test_heads_spelt_as_fractions(name: str) -> None:
    """JSON Schema takes 2.0 for a whole number, numpy for no place in an array."""
    found = copy.deepcopy(FOUND["heads"])
    found["rows"][0][name] = float(found["rows"][0][name])
    with pytest.raises(UserError, match=rf"\$\.rows\[0\]\.{name}"):
        read_measurement(json.dumps(found).encode())


ENDLESS = (b"{'descr': '<f4', 'shape': (1,", b"{'descr': '''", b"-" * 9000 + b"1", b" " * 60_000)


@pytest.mark.parametrize("header", ENDLESS, ids=("open", "quoted", "nested", "long"))
def test_arrays_whose_header_does_not_end(tmp_path: Path, header: bytes) -> None:
    array, buffer = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header, io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("edges.npy", array)
    with pytest.raises(ValueError, match=r"header|Header"):
        unpack_arrays(buffer.getvalue())
    arrays = {"centroids": np.zeros((1, 2), np.float32), "starts": np.zeros(2, np.int64), "rows": np.zeros(1, np.int32)}
    save_file(arrays, tmp_path / "index.safetensors")
    (tmp_path / "index.npy").write_bytes(array)
    with pytest.raises(UserError, match="damaged"):
        read_lists(tmp_path / "index", 1)


def test_a_graph_of_more_edges_than_a_file_can_list() -> None:
    for plan in (Plan(1, 1, 1), PLAN, Plan(3, 4, 2, parallel=True)):
        assert count_all_edges(plan) == len([*list_all_edges(plan)])
    eap = encode_eap(make_run(edges=8))[0]
    edges = {"input->logits": {"score": 1.0, "in_graph": True}}
    large = json.dumps(eap | {"edges": edges, "cfg": {"n_layers": 100, "n_heads": 100}}).encode()
    with pytest.raises(UserError, match="edge of the full graph"):
        write_eap(read_circuit(large).circuit)


SHAPES: tuple[Any, ...] = (3, "22", None, {"a": 1}, [2.0], [True], [-1], [[1]], ["1"])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_tensor_whose_shape_is_no_list_of_whole_numbers(tmp_path: Path, shape: Any) -> None:
    path = tmp_path / "model.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(ValueError, match="shape, type or offsets"):
        read_header(path)
    assert estimate_need(tmp_path, "float32") is None
    with pytest.raises(UserError, match="no whole file of tensors"):
        read_width(path)
    with pytest.raises(UserError, match="is damaged"), open_shard(path):
        pass


def test_a_header_says_type_shape_and_place(tmp_path: Path) -> None:
    save_file({"a": np.zeros((2, 3), np.float16), "b": np.zeros((), np.int64)}, tmp_path / "some.safetensors")
    found = read_header(tmp_path / "some.safetensors")
    assert {name: (one.dtype, one.shape, one.count, one.width) for name, one in found.items()} == {
        "a": ("F16", (2, 3), 6, 2),
        "b": ("I64", (), 1, 8),
    }


def test_an_id_of_an_old_bank_that_is_no_name(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    write_first_memories(folder, load_shape("llama"))
    about = json.loads((folder / "memory.json").read_bytes())
    for length, reads in ((LONGEST_ID, True), (LONGEST_ID + 1, False)):
        about["ids"][0] = "x" * length
        (folder / "memory.json").write_text(json.dumps(about))
        if reads:
            assert len(read_head(folder).ids[0]) == length
        else:
            with pytest.raises(UserError, match="not a whole head"):
                read_head(folder)


CONFIG = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "vocab_size": 100}


@pytest.mark.parametrize(
    "name", ["num_key_value_heads", "head_dim", "intermediate_size", "num_local_experts", "vocab_size"]
)
@pytest.mark.parametrize("value", [[1], {"a": 1}, "None", 2.5, -1, 10**400, True], ids=repr)
def test_a_configuration_of_sizes_that_are_none(tmp_path: Path, name: str, value: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {name: value}))
    with pytest.raises(UserError, match="no size"):
        read_shape(tmp_path)
    estimate_need(tmp_path, "float32")


def test_a_configuration_that_says_little(tmp_path: Path) -> None:
    for name, value in (("head_dim", None), ("n_inner", None), ("num_experts", 0)):
        (tmp_path / "config.json").write_text(json.dumps(CONFIG | {name: value}))
        assert (read_shape(tmp_path).d_head, read_shape(tmp_path).d_ffn) == (16, 256)
    for config in (CONFIG | {"text_config": 5}, CONFIG | {"num_attention_heads": 0}):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError):
            read_shape(tmp_path)


def test_numbers_that_no_float_holds_in_what_lies_beside_runs(tmp_path: Path) -> None:
    save_curve(tmp_path, SizeCurve((1, 2), (0.5, 1.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), 1, 0))
    curve = json.loads((tmp_path / "curve.json").read_bytes())
    (tmp_path / "curve.json").write_text(json.dumps(curve | {"faithfulness": [10**400, 1.0]}))
    with pytest.raises(UserError):
        load_curve(tmp_path)
    save_study(make_study("first"), tmp_path)
    path = find_study("first", tmp_path)
    study = json.loads(path.read_bytes())
    study["references"][0]["attention"][0][0][0] = 10**400
    path.write_text(json.dumps(study))
    with pytest.raises(UserError):
        load_study("first", tmp_path)
    (tmp_path / "usage.jsonl").write_text(json.dumps({"id": "a", "usage": 10**400}) + "\n")
    with pytest.raises(UserError, match="the usage '1000"):
        read_usage(tmp_path / "usage.jsonl", None)
    write_parametric("ffn")(tmp_path / "bank", load_shape("llama"))
    change_sealed(tmp_path / "bank" / "bank.json", lambda about: about.update(factor=10**400))
    with pytest.raises(UserError):
        load_bank(tmp_path / "bank")
