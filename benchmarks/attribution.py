"""Edge attribution patching beside the bare passes of the same model: `python benchmarks/attribution.py`.

Random weights, 32 tokens, logit difference. *Bare* is what an ideal implementation cannot avoid: a forward pass of the
counterfactual, a forward and backward pass of the clean prompts (gradients to activations only), all with logits at
every position. Ours computes logits where the answer is read alone, which is part of why a ratio can fall below 1.
Both sides run in this process in turn. *Nodes* are all node scores without edges (AtP); *units* is EAP together with
the score of every FFN unit, as a node and into the logits. Read the ratios: seconds depend on the machine.
"""

from __future__ import annotations

from options import build_models, describe, read_options
from shapes import draw_inputs, measure, print_table, run_backward, run_forward

from circuits.attribution import attribute, attribute_along_path, attribute_nodes
from circuits.problem import Inputs, Problem, pose_problem
from circuits.units import attribute_parts
from probes.models import Model
from probes.progress import quiet

STEPS = 5

# What is wanted at most at batch 8, by the table's columns; EAP at batch 1 may take 1.6 x.
TARGETS = {"EAP / bare": 1.3, "EAP with units and nodes / EAP": 1.1, f"EAP-IG, {STEPS} steps / bare": 1.2}


def score_units(model: Model, inputs: Inputs) -> None:
    """Scores of all edges (a node's is the sum of its own) and of all FFN units, as nodes and into the logits."""
    problem = pose_problem(model, inputs, summed=True, differentiable=True, parts=True)
    edges, _ = attribute_parts(problem, quiet)
    edges.sum(dim=2)


def compare(model: Model, inputs: Inputs, repeats: int, clock: str) -> dict[str, object]:
    """Seconds of the bare passes, ratios of EAP, EAP-IG and node scores to those they need."""

    def pose(differentiable: bool = True) -> Problem:
        return pose_problem(model, inputs, summed=True, differentiable=differentiable)

    work = {
        "forward": lambda: run_forward(model, inputs.counterfactual),
        "backward": lambda: run_backward(model, inputs.clean),
        "EAP": lambda: attribute(pose(), quiet),
        "nodes": lambda: attribute_nodes(pose(), quiet),
        "units": lambda: score_units(model, inputs),
        "EAP-IG": lambda: attribute_along_path(pose(False), STEPS, quiet),
    }
    seconds = measure(work, repeats, clock)
    forward, backward = seconds["forward"], seconds["backward"]
    return {
        "bare forward, s": forward,
        "bare forward + backward, s": backward,
        "EAP / bare": seconds["EAP"] / (forward + backward),
        "nodes / bare": seconds["nodes"] / (forward + backward),
        "EAP with units and nodes / EAP": seconds["units"] / seconds["EAP"],
        f"EAP-IG, {STEPS} steps / bare": seconds["EAP-IG"] / (2 * forward + STEPS * backward),
    }


def main() -> None:
    """Print one row a shape and batch size."""
    options = read_options(__doc__)
    rows = [
        {"shape": shape, "batch": batch} | compare(model, draw_inputs(model, batch), options.repeats, options.clock)
        for shape, model in build_models(options)
        for batch in options.batches
    ]
    print(describe(options))
    print_table([*rows, dict.fromkeys(rows[0], "") | {"shape": "at most"} | TARGETS])


if __name__ == "__main__":
    main()
