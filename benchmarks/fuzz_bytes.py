"""Bytes guided by coverage: `python -m benchmarks.fuzz_bytes --seconds 60` (needs `pip install '.[fuzz]'`, atheris).

libFuzzer changes bytes of whole artefacts and keeps what reaches new lines of ours: circuit files, views, studies,
measurements, tables, a run's arrays, JSON. Anything but a UserError ends it, with the input left in `--corpus`, which a
later run begins with. One process a parser; `--only` names some.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

Parser = Callable[[bytes], object]


def write_then(name: str, read: Callable[[Path], object]) -> Parser:
    """A parser that takes a file."""
    folder = Path(tempfile.mkdtemp())

    def parse(data: bytes) -> object:
        (folder / name).write_bytes(data)
        return read(folder / name)

    return parse


def list_parsers() -> dict[str, Parser]:
    """Parsers of bytes by name; imported here, so that they are instrumented."""
    from probes.facts import build_fact, read_records
    from workbench.importing import read_circuit
    from workbench.measurements import read_measurement
    from workbench.pair_tables import read_pairs
    from workbench.runs import BROKEN, unpack_arrays
    from workbench.view_files import read_file

    def unpack(data: bytes) -> object:
        try:
            return unpack_arrays(data, 1 << 20)
        except BROKEN:
            return None

    return {
        "circuit": read_circuit,
        "measurement": read_measurement,
        "arrays": unpack,
        "view": write_then("view.json", read_file),
        "facts": write_then("facts.csv", lambda path: [build_fact(row, {}) for row in read_records(path)]),
        "pairs": write_then("pairs.csv", read_pairs),
        "facts-jsonl": write_then("facts.jsonl", lambda path: [build_fact(row, {}) for row in read_records(path)]),
    }


def list_seeds() -> dict[str, list[bytes]]:
    """Whole artefacts that each parser takes, to begin with."""
    from tests.conftest import make_run
    from tests.fuzz.files import encode_foreign, encode_own, make_view
    from tests.fuzz.tables import FACT, PAIR, encode_csv, repeat
    from tests.pages.measured import FOUND
    from workbench.exports_json import encode_document
    from workbench.formats.eap import encode_eap
    from workbench.runs import encode_run
    from workbench.view_files import FORMAT, VERSION, encode_view

    run = make_run(edges=6, parts=1)
    view = {"format": FORMAT, "version": VERSION, "views": {"0" * 12: encode_view(make_view(run.circuit))}}
    values = {
        "circuit": [encode_document(run), encode_own(run), encode_foreign(run), encode_eap(run)[0]],
        "measurement": list(FOUND.values()),
        "view": [view],
        "facts-jsonl": [FACT],
    }
    files = encode_run(run)
    return {name: [json.dumps(value).encode() for value in some] for name, some in values.items()} | {
        "arrays": [files["scores.npz"], files["recording.npz"]],
        "facts": [encode_csv(repeat(FACT, 2))],
        "pairs": [encode_csv(repeat(PAIR, 2))],
    }


def fuzz(name: str, corpus: Path, seconds: int, seed: int) -> None:
    """Fuzz one parser in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["probes", "workbench"]):
        parse = list_parsers()[name]
    from probes.errors import UserError

    def attempt(data: bytes) -> None:
        try:
            parse(data)
        except UserError:
            return

    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(list_seeds()[name]):
        (corpus / f"seed-{number}").write_bytes(data)
    told = [f"-max_total_time={seconds}", f"-seed={seed + 1}", "-timeout=10", "-rss_limit_mb=4096", "-max_len=65536"]
    atheris.Setup([sys.argv[0], *told, f"-artifact_prefix={corpus.parent}/{name}-", str(corpus)], attempt)
    atheris.Fuzz()


def main() -> int:
    """Run each parser in a process of its own; exit code 1 when one of them fell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="of each parser")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="a parser's name; may be given again")
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz-corpus"), help="inputs that reached something new")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        fuzz(options.here, options.corpus.resolve() / options.here, options.seconds, options.seed)
        return 0
    fallen = []
    for name in options.only or list_seeds():
        words = ["--seconds", str(options.seconds), "--seed", str(options.seed), "--corpus", str(options.corpus)]
        command = [sys.executable, "-m", "benchmarks.fuzz_bytes", "--here", name, *words]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = ended.stderr.splitlines()
        runs = next((line for line in reversed(lines) if line.startswith("Done")), "stopped")
        cover = next((line.split("cov: ")[1].split()[0] for line in reversed(lines) if "cov: " in line), "?")
        print(f"{name}: {runs}, {cover} edges reached", flush=True)
        if ended.returncode:
            fallen.append(name)
            print("\n".join(lines[-25:]), file=sys.stderr)
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main())
