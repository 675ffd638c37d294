"""Forward passes with fetched blocks beside the bare pass, and fetching: `python benchmarks/bank.py`.

Random weights. The blocks of two levels hold a tenth of the anchor's parameters together, in all layers; at that size
a pass multiplies at least a tenth more (the embedding of tokens counts as parameters and multiplies nothing).
*Reading* computes logits alone, *recording* is the pass that attribution starts from.
Both sides run in this process in turn. *Fetch* reads the two blocks from a bank on disk whose pages are cached. Read
the ratios: seconds depend on the machine.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from options import build_models, describe, read_options
from shapes import draw_inputs, measure, print_table, run_forward

from probes.attachments import Attachment
from probes.bank import fetch_blocks, load_bank
from probes.blocks import Design, measure_widths
from probes.forward import Pass
from probes.models import Model
from probes.reading import Reader
from workbench.banks.writing import start_shards, write_bank

SHARE, LENGTH = 0.1, 128


def design_bank(model: Model, parameters: int) -> Design:
    """Two levels of FFN blocks in all layers, a path of which has a tenth of these parameters."""
    rank = round(SHARE * parameters / (3 * model.layers * model.d_model))
    return Design("ffn", measure_widths(model), tuple(range(model.layers)), (rank // 2, rank - rank // 2), branching=2)


def compare(model: Model, folder: Path, batch: int, repeats: int, clock: str) -> dict[str, object]:
    """Seconds of the bare pass, and ratios of passes with blocks to it."""
    parameters = sum(parameter.numel() for parameter in model.bridge.original_model.parameters())
    design = design_bank(model, parameters)
    if not folder.exists():
        write_bank(folder, design, model.sha256, start_shards(design, 0))
    bank = load_bank(folder, model)
    attachment = Attachment(bank=fetch_blocks(bank, model, (0, 1)))
    tokens, reading = draw_inputs(model, batch, LENGTH).clean, Reader(model, attachment)
    with torch.no_grad():
        seconds = measure(
            {
                "bare": lambda: run_forward(model, tokens),
                "reading": lambda: reading.run(tokens),
                "recording": lambda: Pass(model, attachment).run(tokens),
                "fetch": lambda: fetch_blocks(bank, model, (0, 1)),
            },
            repeats,
            clock,
        )
    return {
        "fetched / parameters": design.fetched / parameters,
        "bare, s": seconds["bare"],
        "reading / bare": seconds["reading"] / seconds["bare"],
        "recording / bare": seconds["recording"] / seconds["bare"],
        "fetch, s": seconds["fetch"],
    }


def main() -> None:
    """Print one row a shape and batch size."""
    options = read_options(__doc__, shapes=("llama",))
    with tempfile.TemporaryDirectory() as temporary:
        rows = [
            {"shape": shape, "batch": batch}
            | compare(model, Path(temporary) / shape, batch, options.repeats, options.clock)
            for shape, model in build_models(options)
            for batch in options.batches
        ]
    print(describe(options))
    print_table(rows)


if __name__ == "__main__":
    main()
