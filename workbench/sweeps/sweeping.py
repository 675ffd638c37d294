"""The whole sweep on one screen: facts are planned into jobs, workers turn jobs into parts, parts are put in place.

1. The plan depends on the facts, conditions, methods and chunk size alone.
2. A job's part is renamed into place when it is whole, under the job's number. What is there is not done again.
3. Facts that are refused before anything is run stand in a part of their own, so that every fact is in the table.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from probes.progress import Tick, quiet
from workbench.library import read_shipped_facts
from workbench.storage import read_bytes, write_file
from workbench.sweeps.parts import REFUSED, encode_rows, hold_folder, name_part, open_folder
from workbench.sweeps.plans import COLUMNS, FORMAT, HEAD, VERSION, Order, Plan, plan_sweep
from workbench.sweeps.workers import Crew

ENGINES = ("local", "ray")


def sweep(
    path: Path | None,
    folder: Path,
    order: Order,
    engine: str = "local",
    workers: int = 1,
    address: str = "",
    gpus: float = 0.0,
    tick: Tick = quiet,
) -> dict[str, Any]:
    """Write (or go on writing) the table of all facts of a file, or of the shipped ones, into a folder.

    Gives how many jobs there are and how many were there already. Raises UserError for a table that cannot be read, a
    folder that holds another table or is being written, and a model or cluster that is not there.
    """
    order.check()
    tick("reading the facts", 0, 1)
    plan = plan_sweep(path, read_shipped_facts(), order.conditions, order.chunk)
    order = replace(order, own=plan.own)
    with gather(order, engine, workers, address, gpus, tick) as crew, hold_folder(folder):
        open_folder(folder, HEAD, describe(path, order, crew.source), "sweep")
        left = [job for job in plan.jobs if not (folder / name_part(job.number)).is_file()]
        there = len(plan.jobs) - len(left)
        tick("parts", there, len(plan.jobs))
        for done, (number, part) in enumerate(crew.run(left), start=there + 1):
            write_file(folder / name_part(number), part)
            tick("parts", done, len(plan.jobs))
        write_file(folder / REFUSED, encode_refused(plan))
    return {"facts": plan.total, "parts": len(plan.jobs), "resumed": there}


def gather(
    order: Order, engine: str, workers: int, address: str, gpus: float, tick: Tick
) -> AbstractContextManager[Crew]:
    """The workers of an engine."""
    if engine == "ray":
        from workbench.sweeps.cluster import gather_actors

        return gather_actors(order, workers, address, gpus)
    from workbench.sweeps.workers import gather_processes

    return gather_processes(order, workers, tick)


def describe(path: Path | None, order: Order, source: dict[str, Any]) -> dict[str, Any]:
    """Head of a table: format, versions, and the question that a resumed sweep must share."""
    source = dict(source)
    versions = source.pop("versions")
    facts = "shipped" if path is None else hashlib.sha256(read_bytes(path)).hexdigest()
    question = {"facts": facts, **source, **order.to_json()}
    about = {"format": FORMAT, "version": VERSION, "versions": versions, "question": question}
    plain: dict[str, Any] = json.loads(json.dumps(about))
    return plain


def encode_refused(plan: Plan) -> bytes:
    """Part of the facts that were refused before anything was run."""
    rows = [{"fact": one.fact, "row": "reason", "reason": one.reason} for one in plan.refused]
    return encode_rows(rows, COLUMNS)
