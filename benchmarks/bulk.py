"""Ledgers of many shipped facts beside the bare passes that they need: `python benchmarks/bulk.py`.

*Bare* is what no implementation of a ledger can avoid: for every fact and every combination of its formats a forward
and a backward pass of the model itself (gradients to activations only), the same tokens in the same batches, no
memories and no hooks beside the one that starts the graph, logits at every position. *Ledgers* are all of ours:
combinations with memories attached, Shapley values, parts, and the table's rows; *with files* also lays the prompts
out, reads the memories from disk and writes the Parquet parts. Both run in this process in turn. Read the ratios:
seconds depend on the machine. Facts are spread evenly over the shipped ones; facts whose answer the model does not know
are measured as long as the others before they are set aside.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from options import describe, read_options
from shapes import measure, print_table, run_backward

from circuits.coalitions import Asked
from probes.facts import Fact
from probes.models import Model
from workbench.engine import open_engine
from workbench.ledgers.bulk import attribute, measure_chunk, plan
from workbench.ledgers.prompts import build_asked
from workbench.settings import Settings


def spread(facts: Sequence[Fact], count: int) -> list[Fact]:
    """So many facts, at equal distances in the list."""
    return [facts[place * len(facts) // count] for place in range(min(count, len(facts)))]


def list_bare(asked: Asked) -> Iterator[torch.Tensor]:
    """Tokens of every row that a ledger runs: combinations times prompts, without the text and with it."""
    formats = len(asked.list_formats())
    if asked.with_text is None:
        yield asked.plain.repeat(2**formats, 1)
        return
    for tokens in (asked.plain, asked.with_text):
        yield tokens.repeat(2 ** (formats - 1), 1)


def run_bare(model: Model, batches: Sequence[torch.Tensor]) -> None:
    """The bare passes, forward and backward."""
    for tokens in batches:
        run_backward(model, tokens)


def main() -> None:
    """Print one row a condition: text or not."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--facts", type=int, default=1000)
    own.add_argument("--chunk", type=int, default=32)
    options = read_options(__doc__, own=own)
    rows = list[dict[str, object]]()
    for text in ("none", "auto"):
        settings = Settings(text=text, memory="own", device=options.device, dtype=options.dtype)
        engine = open_engine(settings)
        with tempfile.TemporaryDirectory() as temporary:
            path, folders = Path(temporary) / "facts.jsonl", iter(range(1_000_000))
            chosen = spread(engine.facts, options.facts)
            path.write_text("\n".join(json.dumps({"id": fact.id}) for fact in chosen))
            planned = plan(engine, path, settings, options.chunk)
            bare = [tokens for chunk in planned.chunks for tokens in list_bare(build_asked(engine, chunk))]

            def measure_ledgers(planned=planned, engine=engine, settings=settings) -> None:  # type: ignore[no-untyped-def]
                for chunk in planned.chunks:
                    list(measure_chunk(engine, chunk, "renormalised", settings, 1000, 0.01))

            work = {
                "bare": lambda engine=engine, bare=bare: run_bare(engine.model, bare),
                "ledgers": measure_ledgers,
                "files": lambda engine=engine, path=path, settings=settings, folder=Path(temporary), folders=folders: (
                    attribute(engine, path, folder / str(next(folders)), settings, chunk=options.chunk)
                ),
            }
            seconds = measure(work, options.repeats, options.clock)
        rows.append(
            {
                "text": text,
                "facts": sum(map(len, planned.chunks)),
                "rows of bare passes": sum(len(tokens) for tokens in bare),
                "bare, s": seconds["bare"],
                "ledgers / bare": seconds["ledgers"] / seconds["bare"],
                "with files / bare": seconds["files"] / seconds["bare"],
            }
        )
    print(describe(options))
    print_table(rows)


if __name__ == "__main__":
    main()
