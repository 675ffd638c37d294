"""Experiments beside the demo model: an anchor trained alone, memory kinds, depth, memory layers, two stages.

Each arm is a training of its own, kept as one JSON file when it is done, so that a run that was stopped goes on with
the next arm. Kinds and depth start from the anchor trained alone, which the first experiment makes.
"""

from __future__ import annotations

import copy
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save
from transformers import LlamaForCausalLM

from probes.errors import UserError
from workbench.demo.batches import Encoder
from workbench.demo.build import Material, learn, prepare
from workbench.demo.config import Config
from workbench.demo.evaluation import Row, collect_rows, measure_explicit_memory
from workbench.demo.kinds import KINDS
from workbench.demo.loading import ALONE, ARMS, Demo, load_alone, load_arms, load_demo
from workbench.demo.loading import EXPERIMENTS as EXPERIMENTS_FOLDER
from workbench.demo.memories import write_memories
from workbench.demo.network import Attached
from workbench.demo.posthoc import measure_blocks, train_blocks
from workbench.demo.readers import adapt_reader, train_reader
from workbench.demo.training import Progress
from workbench.storage import write_file


@dataclass(frozen=True, slots=True)
class Bench:
    """What every arm works with: the finished demo, its material, the folder of work in progress, and its seed."""

    demo: Demo
    material: Material
    folder: Path
    work: Path
    progress: Progress

    @property
    def config(self) -> Config:
        """The demo's configuration."""
        return self.material.config


def run_experiments(folder: Path, work: Path, only: Sequence[str] = (), progress: Progress | None = None) -> list[Row]:
    """Run the experiments (all, or those named), write `experiments/` in the demo's folder, and return its rows.

    Arms that the demo's folder or the work folder has already are kept.
    Raises `UserError` for a folder that holds no demo model, and for an experiment that does not exist.
    """
    unknown = [name for name in only if name not in EXPERIMENTS]
    if unknown:
        raise UserError(f"no experiment {unknown[0]!r}: choose from {', '.join(EXPERIMENTS)}")
    demo = load_demo(folder)
    torch.set_num_threads(demo.config.training.threads)
    for arm in load_arms(folder):
        path = work / "arms" / f"{arm['name']}.json"
        if not path.is_file():
            write_file(path, json.dumps(arm).encode())
    report = progress or (lambda _name, _done, _total: None)
    bench = Bench(demo, prepare(demo.config, work / "embeddings.npz", report), folder, work, report)
    for name, run in EXPERIMENTS.items():
        if not only or name in only:
            run(bench)
    arms = [json.loads(path.read_text()) for path in sorted((work / "arms").glob("*.json"))]
    target = folder / EXPERIMENTS_FOLDER
    write_file(target / ARMS, (json.dumps({"arms": arms}, indent=1) + "\n").encode())
    return collect_rows(arms)


def keep_arm(bench: Bench, experiment: str, condition: str, train: Callable[[], Row], suffix: str = "") -> None:
    """Train an arm and write its record, unless that was done before."""
    name = "-".join(f"{experiment} {condition} {suffix}".split())
    path = bench.work / "arms" / f"{name}.json"
    if not path.is_file():
        began = time.monotonic()
        record = {**train(), "name": name, "experiment": experiment, "condition": condition}
        write_file(path, json.dumps({**record, "seconds": round(time.monotonic() - began)}).encode())


def train_alone(bench: Bench) -> None:
    """An anchor of the same size on the same passages and exercises, at the same rates, without bank and memories.

    The passes that train the demo's blocks alone are one more decay of its third stage: it is trained as long.
    """
    target = bench.folder / EXPERIMENTS_FOLDER / ALONE
    if target.is_file():
        return
    plan = bench.config.training
    config = replace(
        bench.config,
        training=replace(plan, last_epochs=[*plan.last_epochs, plan.block_epochs], block_epochs=0.0),
        bank=replace(bench.config.bank, fetched_share=0.0, generic_share=0.0),
        memory=replace(bench.config.memory, rows=0),
    )
    material = replace(bench.material, config=config)
    learner, _ = learn(material, bench.work / "alone", resume=True, progress=bench.progress)
    weights = {name: value.detach().bfloat16().contiguous() for name, value in learner.anchor.named_parameters()}
    write_file(target, save(weights))


def start_alone(bench: Bench) -> LlamaForCausalLM:
    """A copy of the anchor trained alone, which is trained first where it is missing."""
    train_alone(bench)
    anchor = load_alone(bench.folder, bench.demo.model)
    assert anchor is not None
    return anchor


def compare_kinds(bench: Bench) -> None:
    """FFN, LoRA and key-value blocks of one size on the frozen anchor."""
    for kind in KINDS:
        train_design(bench, "memory kinds", kind, kind, list(range(bench.config.model.layers)))


def compare_depths(bench: Bench) -> None:
    """FFN blocks of one size in the first, middle or last third of the layers, or in all."""
    layers, third = range(bench.config.model.layers), bench.config.model.layers // 3
    depths = {"early": layers[:third], "middle": layers[third : 2 * third], "late": layers[2 * third :]}
    for name, chosen in {**depths, "uniform": layers}.items():
        train_design(bench, "depth", name, "FFN", list(chosen))


def train_design(bench: Bench, experiment: str, condition: str, kind: str, layers: list[int]) -> None:
    """One design of blocks at every rate; `collect_rows` takes the one of the lowest training loss."""
    about = {"experiment": experiment, "condition": condition}
    for rate in bench.config.experiments.block_rates:

        def train(rate: float = rate) -> Row:
            design = {"kind": kind, "layers": layers, "rate": rate}
            twin = find_arm(bench, design)
            if twin is not None:  # FFN blocks in all layers stand in two comparisons
                return {**twin, **about, "rows": [{**row, **about} for row in twin["rows"]]}
            anchor = start_alone(bench)
            blocks, loss = train_blocks(bench.material, anchor, kind, layers, rate, bench.progress)
            rows = measure_blocks(bench.material, blocks, anchor, about)
            return {**design, "rows": rows, "loss": loss, "numbers": blocks.numbers, "rank": blocks.rank}

        keep_arm(bench, experiment, condition, train, f"rate {rate:g}")


def find_arm(bench: Bench, wanted: Row) -> Row | None:
    """Record of a finished arm with these values; None where there is none."""
    arms = (json.loads(path.read_text()) for path in sorted((bench.work / "arms").glob("*.json")))
    return next((arm for arm in arms if all(arm.get(key) == value for key, value in wanted.items())), None)


def sweep_layers(bench: Bench) -> None:
    """Which layers are memory layers: accuracy before and after the same short training on each choice.

    It starts from the demo's own anchor: reading by name takes thousands of steps to learn, another choice of layers
    some hundreds. The layers that it was trained with have that advantage.
    """
    for layers in bench.config.experiments.memory_layers:
        name = "layers " + ", ".join(map(str, layers))

        def train(layers: list[int] = layers, name: str = name) -> Row:
            config = replace(bench.config, memory=replace(bench.config.memory, layers=layers))
            anchor = copy.deepcopy(bench.demo.model)
            rows = measure_reader(bench, config, anchor, "memory layers", name + ", untrained")
            losses = adapt_reader(bench.material, config, anchor, bench.progress)
            rows += measure_reader(bench, config, anchor, "memory layers", name)
            return {"rows": rows, "layers": layers, "losses": losses}

        keep_arm(bench, "memory layers", name, train)


def compare_stages(bench: Bench) -> None:
    """Memory from the first step against warm-up then memory, with and without gradient through the write."""
    arms = itertools.product(bench.config.experiments.seeds, (False, True), (True, False))
    for seed, warm, gradient in arms:
        name = f"{'after warm-up' if warm else 'from the start'}, {'with' if gradient else 'without'} gradient"
        condition = f"{name}, seed {seed}"

        def train(seed: int = seed, warm: bool = warm, gradient: bool = gradient, condition: str = condition) -> Row:
            curve: list[Row] = []

            def measure(step: int, anchor: LlamaForCausalLM) -> None:
                rows = measure_reader(bench, bench.config, anchor, "two stages", condition)
                curve.append({"step": step, "rows": rows})

            train_reader(bench.material, seed, warm, gradient, measure, bench.progress)
            short = [
                {"step": point["step"], **{r["paraphrase"]: r["accuracy"] for r in point["rows"]}} for point in curve
            ]
            return {"rows": curve[-1]["rows"], "curve": short}

        keep_arm(bench, "two stages", condition, train)


def measure_reader(
    bench: Bench, config: Config, anchor: LlamaForCausalLM, experiment: str, condition: str
) -> list[Row]:
    """Never-seen facts with text, one memory and five, rewritten by this anchor; `paraphrase` names the reading."""
    anchor.eval()
    texts = [bench.demo.documents[name] for name in bench.demo.memory_ids]
    memory = write_memories(anchor, Encoder(bench.demo.tokenizer), config, texts)
    demo = replace(bench.demo, model=anchor, attached=Attached(anchor), memory=memory, config=config)
    found = measure_explicit_memory(demo, 0, 2 * bench.config.experiments.limit, ("seen",), dense=False)
    anchor.train()
    return [
        {**row, "experiment": experiment, "condition": condition, "paraphrase": row["condition"]}
        for row in found
        if row["condition"] in ("text in the prompt", "one memory", "five memories")
    ]


EXPERIMENTS: dict[str, Callable[[Bench], None]] = {
    "alone": train_alone,
    "memory kinds": compare_kinds,
    "depth": compare_depths,
    "memory layers": sweep_layers,
    "two stages": compare_stages,
}
