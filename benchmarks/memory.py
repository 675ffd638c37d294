"""Writing explicit memories beside bare forward passes: `python benchmarks/memory.py`.

Random weights, references of 128 tokens, 8 slots. *Bare* is the model's forward pass over the same tokens in the same
batches, with logits at every position. Writing ends at the deepest memory layer, so it depends on which those are: the
first half (the paper's choice, and ours when none are named), or all. Wanted: a speed of at least 0.8 of the bare
passes, that is, at most 1.25 of their time. Both sides run in this process in turn. Read the ratios: seconds depend on
the machine.
"""

from __future__ import annotations

import torch
from options import build_models, describe, read_options
from shapes import measure, print_table, run_forward

from probes.models import Model
from probes.slots import Scoring
from probes.writing import Recipe, choose_first_half, write_batch

LENGTH, FIRST = 128, 2


def compare(model: Model, batch: int, scoring: Scoring, repeats: int, clock: str) -> dict[str, object]:
    """Seconds of one batch bare, and the time and speed of writing beside it."""
    tokens = torch.randint(2, 2000, (batch, LENGTH), generator=torch.Generator().manual_seed(0))
    references = tokens.tolist()
    half, every = Recipe(choose_first_half(model), scoring=scoring), Recipe(tuple(range(model.layers)), scoring=scoring)
    seconds = measure(
        {
            "bare": lambda: run_forward(model, tokens),
            "half": lambda: write_batch(model, half, references, FIRST),
            "all": lambda: write_batch(model, every, references, FIRST),
        },
        repeats,
        clock,
    )
    bare = seconds["bare"]
    return {
        "bare forward, s": bare,
        "writing / bare, first half": seconds["half"] / bare,
        "speed, first half": bare / seconds["half"],
        "writing / bare, all layers": seconds["all"] / bare,
        "speed, all layers": bare / seconds["all"],
    }


def main() -> None:
    """Print one row a shape, batch size and score of tokens."""
    options = read_options(__doc__, shapes=("llama",))
    scorings: tuple[Scoring, ...] = ("softmax", "exp-sum")
    rows = [
        {"shape": shape, "batch": batch, "scoring": scoring}
        | compare(model, batch, scoring, options.repeats, options.clock)
        for shape, model in build_models(options)
        for batch in options.batches
        for scoring in scorings
    ]
    print(describe(options))
    print_table(rows)


if __name__ == "__main__":
    main()
