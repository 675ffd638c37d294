"""Tests of the tests: `python -m benchmarks.mutants --sample 6 --into docs/reliability-mutants.md`.

Each mutant is a source file with one operator, comparison, number or condition changed (cosmic-ray's operators, drawn
by a seed: a place first, then what is done to it). The narrow tests of that file then run in a process of their own,
forked from one that holds the libraries but nothing of ours, in a copy of the repository. A mutant is killed when a
test fails, the file cannot be imported, or the tests take far longer than without it; else it survives. Annotations
and decorators are left alone. cosmic-ray comes with `pip install '.[mutants]'`; `make mutants` does both.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[1]
COPIED = ("benchmarks", "circuits", "docs", "pages", "probes", "tests", "workbench")
LIBRARIES = (
    "duckdb", "jsonschema", "networkx", "numpy", "pyarrow.parquet", "pytest", "scipy.stats",
    "safetensors.torch", "streamlit", "tokenizers", "torch", "transformer_lens", "transformers",
)  # fmt: skip


def choose(path: str, *names: str) -> tuple[str, ...]:
    """Some tests of a file, for pytest."""
    return tuple(f"{path}::test_{name}" for name in names)


# The narrow tests of each file, the quick ones first.
LAWS, METHODS = (f"tests/circuits/test_{name}.py" for name in ("laws", "methods"))
RESTARTS, KINDS_FILE = "tests/circuits/test_restarts.py", "tests/circuits/test_kinds.py"
KINDS = f"{KINDS_FILE}::test_paths_stages_and_parts_are_complete[FFN]"
FAITHFUL, SELECTING, QUALITY = (f"tests/circuits/test_{name}.py" for name in ("faithfulness", "selection", "quality"))
FOUND = "tests/fuzz/test_found.py::test_the_table_of_who_sees_whom_is_that_of_the_single_pairs"
UNITS, LEDGERS, COSTS = (
    "tests/circuits/test_units.py",
    "tests/circuits/test_ledgers.py",
    "tests/workbench/test_costs.py",
)
SEARCH, CACHE = "tests/workbench/test_memory_search.py", "tests/workbench/test_memory_cache.py"
GENERATED, COLD = (f"tests/workbench/test_generation{name}.py" for name in ("", "_blocks"))
BANK, SLOTS, EXACT = (f"tests/probes/test_{name}.py" for name in ("bank", "slots", "memory_exactness"))
RECALLED = choose(
    GENERATED,
    "memories_are_found_for_each_chunk_and_cold_is_warm",
    "the_order_of_memories_changes_nothing",
    "the_command",
)
STARTED = choose(
    COLD,
    "documents_read_cold_are_the_bank_of_these_documents",
    "known_chunks_are_embedded_in_one_call",
    "documents_without_text_are_refused",
    "the_command_starts_cold_from_documents",
)
REMOVED = (
    *choose(METHODS, "memories_are_removed_in_two_ways"),
    *choose("tests/circuits/test_batches.py", "batches_add_up_to_the_whole", "faithfulness_is_that_of_the_whole"),
)
TESTS: dict[str, tuple[str, ...]] = {
    "circuits/agreement.py": (QUALITY,),
    "circuits/anchors.py": (LEDGERS,),
    "circuits/assembly.py": (SELECTING, QUALITY),
    "circuits/attention.py": ("tests/circuits/test_attention.py",),
    "circuits/attribution.py": (LAWS, METHODS),
    "circuits/coalitions.py": (LEDGERS,),
    "circuits/connectivity.py": (SELECTING, QUALITY),
    "circuits/curves.py": (QUALITY,),
    "circuits/effect_sizes.py": ("tests/circuits/test_effect_sizes.py",),
    "circuits/effects.py": (KINDS, METHODS),
    "circuits/faithfulness.py": (FAITHFUL, QUALITY),
    "circuits/graph.py": (SELECTING, FOUND, LAWS),
    "circuits/intervals.py": ("tests/circuits/test_intervals.py",),
    "circuits/ledgers.py": (LEDGERS,),
    "circuits/masking.py": (FAITHFUL, RESTARTS, LAWS, KINDS),
    "circuits/metrics.py": ("tests/circuits/test_metrics.py", LAWS),
    "circuits/optimum.py": (SELECTING,),
    "circuits/patching.py": (
        *choose(RESTARTS, "long_prompts_run_fewer_rows_at_once", "patches_run_together_as_far_as_2048_tokens_go"),
        *choose(RESTARTS, "masks_of_one_pair_run_together", "restarted_patches_are_masked_runs"),
        FAITHFUL,
        LAWS,
    ),
    "circuits/pruning.py": choose(METHODS, "pruning_in_batches_is_pruning_one_by_one"),
    "circuits/quality.py": (QUALITY,),
    "circuits/relevance.py": choose(
        METHODS,
        "relevance_of_one_unit_by_hand",
        "halved_products_split_their_relevance",
        "relevance_is_conserved",
        "relevance_rules_change_no_forward_pass",
    ),
    "circuits/scoring.py": (
        FAITHFUL,
        *choose(METHODS, "padding_changes_no_score", "node_methods_of_a_batch_are_means_of_its_pairs"),
    ),
    "circuits/selection.py": (SELECTING,),
    "circuits/shapley.py": ("tests/circuits/test_shapley.py", LEDGERS),
    "circuits/stability.py": (SELECTING,),
    "circuits/stages.py": choose(
        METHODS,
        "stages_are_what_cannot_see_each_other",
        "effects_of_nodes_are_patches_of_their_edges",
        "scores_of_a_stage_add_up_to_its_exact_effect",
    ),
    "circuits/units.py": (UNITS,),
    "probes/attachments.py": ("tests/probes/test_attachments.py", *REMOVED),
    "probes/blocks.py": (BANK,),
    "probes/codebooks.py": ("tests/workbench/test_compression.py",),
    "probes/codes.py": ("tests/workbench/test_compression.py",),
    "probes/explicit.py": (EXACT,),
    "probes/norms.py": ("tests/probes/test_models.py",),
    "probes/reading.py": (
        *choose(GENERATED, "a_slot_absent_for_one_head_is_there_for_the_others"),
        *choose(GENERATED, "the_lean_reader_is_the_recording_pass"),
        EXACT,
    ),
    "probes/slots.py": (SLOTS, EXACT),
    "workbench/costs/blocks.py": (COSTS, BANK),
    "workbench/costs/hierarchical.py": (COSTS,),
    "workbench/costs/memory3.py": (COSTS,),
    "workbench/costs/shapes.py": (COSTS,),
    "workbench/costs/tiers.py": (COSTS,),
    "workbench/memory/cache.py": (CACHE,),
    "workbench/memory/chunks.py": choose(
        "tests/workbench/test_memory_commands.py",
        "chunks_are_the_document",
        "a_document_within_window_and_budget_is_one_chunk",
        "a_budget_of_one_token_cuts_at_every_token",
        "a_character_that_does_not_fit_is_no_endless_search",
    ),
    "workbench/memory/cold.py": STARTED,
    "workbench/memory/overlap.py": (SEARCH, *RECALLED),
    "workbench/memory/retrieval.py": (*RECALLED, *choose(COLD, "what_was_found_is_not_looked_for_again"), *STARTED),
    "workbench/memory/search.py": (SEARCH,),
}
# Operators that need names of ours, or change nothing that a test could see.
LEFT_OUT = ("NoOp", "Variable", "RemoveDecorator")
SLOWER, LEAST_PATIENCE = 3.0, 20.0


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: where it stands in its file, cosmic-ray's operator and which of its occurrences."""

    path: str
    line: int
    operator: str
    occurrence: int
    code: str

    def describe(self) -> str:
        """File, operator, and the changed lines before and after, as in the list of survivors."""
        before = (ROOT / self.path).read_text(encoding="utf-8").splitlines()
        told = difflib.unified_diff(before, self.code.splitlines(), n=0, lineterm="")
        lines = [line for line in told if line[:1] in "+-" and line[:3] not in ("+++", "---")]
        return f"`{self.path}` {self.operator}: ``{' '.join(f'{line[0]} {line[1:].strip()}' for line in lines)}``"


def find_declarations(source: str) -> set[int]:
    """Lines and columns, as line * 1000 + column, that stand inside an annotation or a decorator."""
    inside: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        parts = [getattr(node, name, None) for name in ("annotation", "returns")]
        for part in [*parts, *getattr(node, "decorator_list", [])]:
            if isinstance(part, ast.expr):
                assert part.end_lineno and part.end_col_offset
                first, last = part.lineno * 1000 + part.col_offset, part.end_lineno * 1000 + part.end_col_offset
                inside.update(range(first, last))
    return inside


def list_mutants(path: str) -> Iterator[tuple[tuple[int, int], list[tuple[str, int]]]]:
    """Each place of a file that can be changed, with the operators, and their occurrences, that change it."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    source = (ROOT / path).read_text(encoding="utf-8")
    declarations, places = find_declarations(source), {}
    nodes = list(ast_nodes(get_ast(source)))
    for name in sorted(plugins.operator_names()):
        operator = plugins.get_operator(name)
        if any(word in name for word in LEFT_OUT) or operator.arguments():
            continue
        found = [place for node in nodes for place, _ in operator().mutation_positions(node)]
        for occurrence, (line, column) in enumerate(found):
            if line * 1000 + column not in declarations:
                places.setdefault((line, column), []).append((name, occurrence))
    yield from sorted(places.items())


def draw_mutants(path: str, count: int, seed: int) -> list[Mutant]:
    """So many mutants of a file that are Python, each at a place of its own."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    source, draw, drawn = (ROOT / path).read_text(encoding="utf-8"), Random(f"{path}/{seed}"), []
    places = list(list_mutants(path))
    for (line, _), changes in draw.sample(places, len(places)):
        name, occurrence = draw.choice(changes)
        code = mutate_code(source, get_operator(name)(), occurrence)
        if code and ast.dump(ast.parse(code)) != ast.dump(ast.parse(source)):
            drawn.append(Mutant(path, line, name.partition("/")[2], occurrence, code))
        if len(drawn) == count:
            break
    return drawn


def copy_repository(place: Path) -> None:
    """What the tests need, in a folder of its own."""
    for name in COPIED:
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__", "_build"))
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copyfile(path, place / path.name)


def run_tests(place: Path, tests: Sequence[str]) -> int:
    """Exit code of pytest, in a process that shares what this one has imported."""
    import pytest

    os.setsid()
    os.chdir(place)
    sys.path[:] = [str(place)] + [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
        return int(pytest.main(["-x", "-q", "--assert=plain", "-p", "no:xdist", f"--rootdir={place}", *tests]))


def try_tests(place: Path, tests: Sequence[str], patience: float) -> tuple[bool, float]:
    """Whether the tests pass in that time, and the seconds they took."""
    start, child = time.monotonic(), os.fork()
    if child == 0:
        code = 70
        with contextlib.suppress(BaseException):
            code = run_tests(place, tests)
        os._exit(code)
    while time.monotonic() - start < patience:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0, time.monotonic() - start
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False, patience


def write_source(path: Path, code: str, stamp: int) -> None:
    """Write a source file with a time of its own, so that no compiled form of another mutant is taken for it."""
    path.write_text(code, encoding="utf-8")
    os.utime(path, (stamp, stamp))


def measure_file(
    place: Path, path: str, count: int, seed: int, before: Mapping[str, Any] | None = None, added: Sequence[str] = ()
) -> dict[str, Any]:
    """How many mutants of a file were tried, and what its tests let live.

    Given the row of the same mutants `before` tests were added, only its survivors are tried; with `added` by these of
    the file's tests alone, for what some of them kill all of them kill. Raises RuntimeError when the tests fail anyway.
    """
    mutants, source = draw_mutants(path, count, seed), (ROOT / path).read_text(encoding="utf-8")
    told = [mutant.describe() for mutant in mutants]
    same = before is not None and before["mutants"] == len(mutants) and set(before["survivors"]) <= set(told)
    tried = before["survivors"] if before is not None and same and before["seed"] == seed else told
    tests = [test for test in added if test.startswith(TESTS[path])] if tried is not told else []
    passed, seconds = try_tests(place, tests or TESTS[path], 600.0)
    if not passed:
        raise RuntimeError(f"the tests of {path} fail as it is: {' '.join(tests or TESTS[path])}")
    survivors, stamp = [], int(time.time())
    for number, (mutant, text) in enumerate(zip(mutants, told, strict=True)):
        if text not in tried:
            continue
        write_source(place / path, mutant.code, stamp + 10 * (number + 1))
        if try_tests(place, tests or TESTS[path], LEAST_PATIENCE + SLOWER * seconds)[0]:
            survivors.append(text)
    write_source(place / path, source, stamp)
    return {"file": path, "seed": seed, "mutants": len(mutants), "survivors": survivors}


def read_rows(path: Path) -> dict[str, Any]:
    """Rows of files that were measured before, by file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {row["file"]: row for row in map(json.loads, lines)}


def format_report(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of files, their sum, and the list of survivors."""
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in rows}))
    lines = [f"Seed {seeds}.", "", "| file | mutants | killed | survived | score |", "|---|---|---|---|---|"]
    survivors = [text for row in rows for text in row["survivors"]]
    sums = {"file": "all", "mutants": sum(row["mutants"] for row in rows), "survivors": survivors}
    for row in (*rows, sums):
        count, lived = row["mutants"], len(row["survivors"])
        score = (count - lived) / max(count, 1)
        lines.append(f"| {row['file']} | {count} | {count - lived} | {lived} | {score:.0%} |")
    return "\n".join([*lines, "", *([f"- {text}" for text in survivors] or ["No mutant survived."])])


def measure(
    paths: Sequence[str], count: int, seed: int, kept: Path, again: bool = False, added: Sequence[str] = ()
) -> list[Mapping[str, Any]]:
    """Rows of these files; each is kept when it is done, in place of an earlier one of its file.

    With `again` only what survived in the earlier one is tried, by the tests `added` where some are given.
    """
    rows = read_rows(kept)
    with tempfile.TemporaryDirectory() as folder:
        copy_repository(Path(folder))
        for path in paths:
            start = time.monotonic()
            before = rows.get(path) if again else None
            rows[path] = row = measure_file(Path(folder), path, count, seed, before, added)
            kept.write_text("".join(json.dumps(one) + "\n" for one in rows.values()), encoding="utf-8")
            lived, took = len(row["survivors"]), time.monotonic() - start
            print(f"{path}: {lived} of {row['mutants']} survive, {took:.0f} s", file=sys.stderr, flush=True)
    return [rows[path] for path in TESTS if path in rows]


def main() -> int:
    """Print the report, or place it in a document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=6, help="mutants of each file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", metavar="FILE", help="a file; may be given again")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="keep rows there: what is measured takes their place")
    parser.add_argument("--missing", action="store_true", help="only files that have no row yet")
    parser.add_argument("--again", action="store_true", help="only survivors, where tests were added and none changed")
    parser.add_argument("--added", action="append", default=[], metavar="TEST", help="with --again: by this test alone")
    parser.add_argument("--into", metavar="DOCUMENT", help="place the report there instead of printing it")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in LIBRARIES:
        __import__(name)
    paths = options.only or list(TESTS)
    with tempfile.TemporaryDirectory() as folder:
        kept = options.rows or Path(folder) / "rows"
        kept.parent.mkdir(parents=True, exist_ok=True)
        there = read_rows(kept) if options.missing else {}
        wanted = [path for path in paths if path not in there]
        report = format_report(measure(wanted, options.sample, options.seed, kept, options.again, options.added))
    if options.into:
        from workbench.documents import place_tables

        place_tables(Path(options.into), report, "mutants")
    else:
        print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
