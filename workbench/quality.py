"""How good a saved run's circuit is: measured on the model again, kept beside the run as `quality.json`.

curves       faithfulness over MIB's grid of sizes, CPR and CMD, beside random circuits
ablations    sufficiency, necessity, completeness, minimality
agreement    estimate against exact patching
overlap      the same selection from other seeds, ablations and paraphrases
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.circuit import UNITS
from probes.errors import UserError
from probes.progress import Tick, quiet
from probes.strict_json import parse_json
from workbench.engine import Engine
from workbench.pipeline import restore_problem, round_trip
from workbench.runs import Run
from workbench.settings import METHODS, restore_settings
from workbench.storage import read_bytes, write_file
from workbench.variants import compare_variants

if TYPE_CHECKING:
    from circuits.problem import Problem

FORMAT = "memory-circuits/quality"
VERSION = 1
FILE = "quality.json"
PARTS = ("curves", "ablations", "agreement", "overlap")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is sampled: knock-outs and random circuits (`draws`), edges patched exactly (`sample`), from `seed`."""

    parts: tuple[str, ...] = PARTS
    draws: int = 10
    sample: int = 60
    seed: int = 0

    def check(self) -> None:
        """Raise UserError for a number out of range or a part that does not exist."""
        for name, low, high in (("draws", 1, 1000), ("sample", 3, 100_000), ("seed", 0, 2**31 - 1)):
            if not low <= getattr(self, name) <= high:
                raise UserError(f"{name} is {getattr(self, name)}: choose a whole number from {low} to {high}")
        if unknown := set(self.parts) - set(PARTS):
            raise UserError(f"unknown part {min(unknown)!r}: choose from {', '.join(PARTS)}")


def measure_run(engine: Engine, run: Run, effort: Effort, tick: Tick = quiet) -> dict[str, Any]:
    """Quality of a saved run's circuit as a JSON object.

    Raises UserError when the circuit is empty, or the model or facts are no longer the run's.
    """
    from circuits.limits import explain_memory

    effort.check()
    if not run.circuit.edges:
        raise UserError("the circuit has no edges, so there is nothing to measure: trace again with more --edges")
    found: dict[str, Any] = {"format": FORMAT, "version": VERSION, "effort": asdict(effort)}
    found["unit"] = UNITS[run.circuit.metric]
    problem = restore_problem(engine, run, tick)
    for part in PARTS:
        if part in effort.parts:
            with explain_memory(f"measuring {part}"):
                found[part] = measure_part(part, engine, run, problem, effort, tick)
    return round_trip(found)


def measure_part(part: str, engine: Engine, run: Run, problem: Problem, effort: Effort, tick: Tick) -> Any:
    """One part as a JSON value."""
    from circuits.agreement import measure_agreement
    from circuits.curves import measure_curves
    from circuits.quality import measure_quality

    if part == "curves":
        return asdict(measure_curves(problem, run.scores, effort.draws, effort.seed, tick))
    if part == "ablations":
        return asdict(measure_quality(problem, run.circuit, effort.draws, effort.seed, tick))
    if part == "overlap":
        settings = restore_settings(run.about["settings"])
        return [asdict(variant) for variant in compare_variants(engine, run, settings, tick)]
    method = METHODS.get(run.scores.method)
    if method is not None and (method.exact or method.level == "nodes"):
        return {"reason": f"{method.label} does not estimate the effect of single edges"}
    return asdict(measure_agreement(problem, run.scores, effort.sample, effort.seed, tick))


def save_quality(folder: Path, quality: dict[str, Any]) -> None:
    """Write `quality.json` into a run's folder, whole or not at all; one that is there is replaced."""
    text = json.dumps(quality, indent=1, sort_keys=True, allow_nan=False)
    write_file(folder / FILE, text.encode() + b"\n")


def load_quality(folder: Path) -> dict[str, Any] | None:
    """What `save_quality` wrote into a run's folder; None when there is none. Raises UserError when it is damaged."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        quality = parse_json(read_bytes(path))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): remove it and measure again") from None
    if not isinstance(quality, dict) or (quality.get("format"), quality.get("version")) != (FORMAT, VERSION):
        raise UserError(f"{path} is not of this release: remove it and measure again")
    return quality
