"""A run at rest: one folder that holds everything a trace found, written whole or not at all.

    run.json         what was asked, settings, hashes, versions, tokens, results, circuit, the command that replays it
    scores.npz       edge and node scores of the whole graph (float32, no pickle)
    recording.npz    attention of the clean run, to the context and to memory slots (float16, no pickle)

Opening a run imports no torch. The same run written twice has the same bytes: no time stamp, no path of a machine.
"""

from __future__ import annotations

import hashlib
import io
import math
import tokenize
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from circuits.circuit import Circuit, Edge, EdgeScores, Move, build_node
from circuits.graph import Plan, check_plan, count_ends, wire
from circuits.parts import KeptParts
from probes.errors import UserError
from probes.strict_json import dump_json, parse_json
from workbench.json_values import are_texts, is_number, require
from workbench.parts import decode_parts, encode_parts
from workbench.run_checks import check_about
from workbench.storage import read_bytes, write_folder

FORMAT = "memory-circuits/run"
VERSION = 2
# Bytes that arrays of any run may have unpacked, those of their headers, and slots of a memory: more is no run.
MOST_BYTES = 1 << 34
HEADERS = 1 << 13
MOST_SLOTS = 1 << 14
# What stands for the tokens when all positions are summed.
EVERYWHERE = "every position"
FILES = ("run.json", "scores.npz", "recording.npz")
# What reading a damaged or edited run raises, in numpy, zipfile and here.
BROKEN = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, EOFError, NotImplementedError,
    MemoryError, OSError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recording:
    """Attention of the clean run: `context[layer, head, query, key]`, `memory[memory layer, head, query, block, slot]`.

    Probabilities of one softmax over memory and context. `memory` has size 0 when no explicit memory was attached.
    """

    context: np.ndarray
    memory: np.ndarray


class Document:
    """What a run and a circuit's file say alike of the question behind them, from the JSON object `about`."""

    __slots__ = ()
    about: dict[str, Any]

    @property
    def pairs(self) -> list[dict[str, Any]]:
        """The prompt pairs it was traced over, at least one."""
        return list(self.about["pairs"])

    @property
    def pair(self) -> dict[str, Any]:
        """The first pair, which stands for all where one is shown."""
        return dict(self.about["pairs"][0])

    @property
    def tokens(self) -> list[str]:
        """Text at each position of the circuit."""
        return list_tokens(self.about)

    @property
    def title(self) -> str:
        """Short human-readable name: the prompt and its answer, and how many more pairs there are."""
        more = f" and {len(self.pairs) - 1} more" if len(self.pairs) > 1 else ""
        return f"{self.pair['clean']} → {self.pair['answer'].strip()}{more}"


@dataclass(frozen=True, slots=True)
class Run(Document):
    """A finished trace. `about` is the JSON object of run.json less the circuit; see `docs/run-format.md`.

    `recording` is empty for a run over several pairs: attention patterns belong to one prompt. `parts` are the
    strongest FFN units, slots and attention edges, None where they were not asked for.
    """

    about: dict[str, Any]
    circuit: Circuit
    scores: EdgeScores
    recording: Recording
    parts: KeptParts | None = None

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from workbench.formats.notebook import show_run

        return show_run(self)


def list_tokens(about: dict[str, Any]) -> list[str]:
    """Text at each position of a circuit: the prompt's tokens and the taught ones of its answer, or all at once.

    A circuit with `summed` positions has a single one.
    """
    pair = about["pairs"][0]
    return [EVERYWHERE] if about["summed"] else [*pair["clean_tokens"], *pair["answer_tokens"][:-1]]


def upgrade(about: dict[str, Any]) -> dict[str, Any]:
    """A document of version 1, which had one pair with an answer of one token, as the present version has it."""
    pair = dict(about["pair"])
    ids = {f"{name}_ids": [pair.pop(f"{name}_id")] for name in ("answer", "foil")}
    tokens = {f"{name}_tokens": [pair[name]] for name in ("answer", "foil")}
    rest = {name: value for name, value in about.items() if name != "pair"}
    return {**rest, "version": VERSION, "pairs": [pair | ids | tokens], "summed": False}


def encode_circuit(circuit: Circuit) -> dict[str, Any]:
    """Circuit as a JSON object."""
    return {
        "plan": asdict(circuit.plan),
        "method": circuit.method,
        "ablation": circuit.ablation,
        "metric": circuit.metric,
        "unit": circuit.unit,
        "requested": circuit.requested,
        "total": circuit.total,
        "nodes": [{"id": node.id, "kind": str(node.component.kind), "score": node.score} for node in circuit.nodes],
        "edges": [asdict(edge) for edge in circuit.edges],
        "moves": [asdict(move) for move in circuit.moves],
    }


def decode_plan(value: dict[str, Any]) -> Plan:
    """Plan from its JSON object. Raises UserError for one that no model has."""
    fields: dict[str, Any] = {k: tuple(item) if isinstance(item, list) else item for k, item in value.items()}
    plan = Plan(**fields)
    check_plan(plan)
    return plan


def decode_circuit(value: dict[str, Any]) -> Circuit:
    """Circuit from its JSON object. Raises UserError, KeyError, TypeError or ValueError on a malformed one."""
    plan = decode_plan(value["plan"])
    words = {name: value[name] for name in ("method", "ablation", "metric", "unit")}
    require(are_texts([*words.values()]), "method, ablation, metric or unit", "text")
    for place, edge in enumerate(value["edges"]):
        require(are_texts([edge["writer"], edge["reader"], edge["role"]]), f"edges[{place}]", "between nodes")
        require(is_number(edge["score"]), f"edges[{place}].score", "a finite number")
    for place, move in enumerate(value["moves"]):
        require(are_texts([move["source"], move["target"]]), f"moves[{place}]", "between nodes")
        require(is_number(move["weight"]), f"moves[{place}].weight", "a finite number")
    return Circuit(
        plan=plan,
        nodes=tuple(build_node(node["id"], float(node["score"]), plan) for node in value["nodes"]),
        edges=tuple(Edge(**edge) for edge in value["edges"]),
        moves=tuple(Move(**move) for move in value["moves"]),
        requested=int(value["requested"]),
        total=int(value["total"]),
        **words,
    )


def check_ends(circuit: Circuit) -> None:
    """Raise ValueError where two nodes are one, an end is none of the nodes, or a node's score is not finite."""
    known = {node.id for node in circuit.nodes}
    require(len(known) == len(circuit.nodes), "nodes", "a list of different ones")
    require(all(is_number(node.score) for node in circuit.nodes), "the score of a node", "a finite number")
    ends = {end for edge in circuit.edges for end in (edge.writer, edge.reader)}
    ends |= {end for move in circuit.moves for end in (move.source, move.target)}
    lost = sorted(ends - known)
    require(not lost, lost[0][:80] if lost else "", "among the nodes")


def pack_arrays(arrays: dict[str, np.ndarray]) -> bytes:
    """Arrays as the bytes of an uncompressed .npz with fixed time stamps, so that equal arrays give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(arrays[name]), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue())
    return buffer.getvalue()


def unpack_arrays(data: bytes, most: int = MOST_BYTES) -> dict[str, np.ndarray]:
    """Arrays of an .npz of at most so many bytes unpacked; pickled objects are refused.

    Raises ValueError before anything larger is unpacked: a few bytes can say that they are terabytes.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            check_header(archive, member)
        total = sum(member.file_size for member in archive.infolist())
    require(total <= most, f"{total:,} bytes unpacked", f"{most:,} at most")
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def check_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise ValueError where an array's own header says more than its file in the archive holds."""
    plain = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not member.flag_bits & 1
    require(plain, "an array", "stored or deflated, and not encrypted")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        require(version in ((1, 0), (2, 0)), f"version {version}", "1.0 or 2.0")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        try:
            shape, _, dtype = read(file)
        except (tokenize.TokenError, RecursionError, MemoryError):
            # numpy takes a header for an expression of Python and lets these through.
            raise ValueError("the header of an array does not end, or is nested too deep") from None
    require(not dtype.hasobject, "an array", "of numbers")
    said = math.prod(shape) * dtype.itemsize
    require(said <= member.file_size, f"{said:,} bytes of an array", f"no more than the {member.file_size:,} there")


def encode_run(run: Run) -> dict[str, bytes]:
    """File names and bytes of a run's folder; run.json carries the SHA-256 of the arrays."""
    arrays = {
        "scores.npz": pack_arrays({"edges": run.scores.edges, "nodes": run.scores.nodes}),
        "recording.npz": pack_arrays({"context": run.recording.context, "memory": run.recording.memory}),
    }
    about = {
        "format": FORMAT,
        "version": VERSION,
        **run.about,
        "circuit": encode_circuit(run.circuit),
        **({} if run.parts is None else {"parts": encode_parts(run.parts)}),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(arrays.items())},
    }
    return {"run.json": dump_json(about, indent=1, sort_keys=True) + b"\n", **arrays}


def save_run(run: Run, folder: Path) -> None:
    """Write a run's folder whole or not at all. Raises UserError when the folder exists and is not empty."""
    write_folder(folder, encode_run(run))


def read_about(folder: Path) -> dict[str, Any]:
    """run.json of a run. Raises UserError when it is missing, of another format, or of a later version."""
    path = folder / "run.json"
    try:
        about = parse_json(read_bytes(path))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): it was cut off or edited; trace again") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise UserError(f"{path} is not a run of this workbench: its format is not {FORMAT!r}")
    if about.get("version") == 1:
        try:
            return upgrade(about)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{path} is not a whole run: its pair is not there; trace again") from None
    if about.get("version") != VERSION:
        raise UserError(f"{path} has version {about.get('version')!r:.40} and this release reads {VERSION}: update it")
    return about


def load_run(folder: Path) -> Run:
    """Read a run and check its arrays against their hashes. Raises UserError when anything is missing or changed."""
    about = read_about(folder)
    packed = {}
    try:
        for name, wanted in about.pop("files").items():
            packed[name] = read_bytes(folder / Path(name).name)
            if hashlib.sha256(packed[name]).hexdigest() != wanted:
                raise UserError(f"{folder / name} is not what was written (its SHA-256 differs): trace again")
        check_about(about)
        circuit = decode_circuit(about.pop("circuit"))
        check_ends(circuit)
        positions, pair = len(list_tokens(about)), about["pairs"][0]
        scored = count_scores(circuit.plan, positions)
        scores = decode_scores(circuit, unpack_arrays(packed["scores.npz"], scored), positions)
        recorded = count_recorded(circuit.plan, len(pair["clean_tokens"]) + len(pair["answer_tokens"]))
        recording = decode_recording(unpack_arrays(packed["recording.npz"], recorded))
        parts = decode_parts(about.pop("parts", None), scores.wiring)
    except BROKEN as error:
        line = " ".join(str(error).split())[:300]
        raise UserError(f"{folder} is not a whole run ({type(error).__name__}: {line}): trace again") from None
    return Run(about=about, circuit=circuit, scores=scores, recording=recording, parts=parts)


def count_scores(plan: Plan, positions: int) -> int:
    """Bytes that scores of a graph may have, unpacked: 8 each, whatever their type, and the arrays' headers."""
    writers, readers = count_ends(plan)
    return min(positions * writers * (readers + 1) * 8 + HEADERS, MOST_BYTES)


def count_recorded(plan: Plan, positions: int) -> int:
    """Bytes that attention of a prompt may have, unpacked."""
    slots = len(plan.explicit_layers) * plan.blocks * MOST_SLOTS
    return min(plan.heads * positions * (plan.layers * positions + slots) * 8 + HEADERS, MOST_BYTES)


def decode_scores(circuit: Circuit, arrays: dict[str, np.ndarray], positions: int) -> EdgeScores:
    """Scores of the whole graph. Raises ValueError unless there is a finite one for all that the graph has."""
    wiring, edges, nodes = wire(circuit.plan), arrays["edges"], arrays["nodes"]
    shape = (positions, *wiring.visible.shape)
    require((edges.shape, nodes.shape) == (shape, shape[:2]), f"the shape {edges.shape} of the scores", f"{shape}")
    require(edges.dtype.kind == nodes.dtype.kind == "f", "scores.npz", "of floats")
    require(bool(np.isfinite(edges).all() and np.isfinite(nodes).all()), "scores.npz", "finite")
    names = {name: getattr(circuit, name) for name in ("method", "ablation", "metric", "unit")}
    return EdgeScores(wiring=wiring, edges=edges, nodes=nodes, **names)


def decode_recording(arrays: dict[str, np.ndarray]) -> Recording:
    """Attention of the clean run. Raises ValueError unless it has the axes of one and is finite."""
    context, memory = arrays["context"], arrays["memory"]
    require(context.dtype.kind == memory.dtype.kind == "f", "recording.npz", "of floats")
    whole = (context.ndim == 4 or not context.size) and (memory.ndim == 5 or not memory.size)
    require(whole, "recording.npz", "attention by layer, head and position")
    require(bool(np.isfinite(context).all() and np.isfinite(memory).all()), "recording.npz", "finite")
    return Recording(context, memory)
