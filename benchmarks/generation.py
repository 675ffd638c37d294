"""Reading and decoding with explicit memories, beside a bare forward and beside the same references as text.

Run: `python benchmarks/generation.py`. Random weights and random words. *Reading*: a pass over 64 tokens that reads 5
memories of 8 slots at the first half of the layers, divided by the same pass without. *Decoding*: 128 tokens after a
prompt of 128, greedy, with a key-value cache on both sides. *explicit* finds 5 memories for every chunk of 64 tokens
(3 retrievals: sentence encoder, exact search, memories read from a bank on disk, none held at the start); *text* has
the 5 references of the first retrieval before its prompt and finds nothing, so retrieval counts against explicit
memory alone; *text that was found* counts the one retrieval that text needs as well; *ready* is explicit with the
retrievals left out. Ratios above 1: explicit is faster. Both sides decode on the twin without hook points
(`probes/decoding.py`), as `memory-circuits generate` does; *with hooks* is the text side on the hooked model.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from options import build_models, describe, read_options
from shapes import measure, print_table, run_forward

from probes.attachments import Attachment, ExplicitBlocks
from probes.decoding import Twin, build_twin
from probes.explicit import fetch_memories
from probes.memory_bank import open_bank
from probes.models import Model
from probes.reading import Reader
from probes.writing import Recipe, choose_first_half
from workbench.demo.clusters import load_encoder
from workbench.generation import Choose, Decoding, generate
from workbench.memory.cache import MemoryCache
from workbench.memory.documents import list_files
from workbench.memory.retrieval import Recaller, Retriever
from workbench.memory.writing import write_documents

CHUNK, PROMPT, MEMORIES, DOCUMENTS, WORDS = 64, 128, 5, 40, 2000


def name_words(model: Model) -> None:
    """Give the model a tokenizer whose every id is one word, so that what it generates can be searched for.

    The first words are whole tokens of the sentence encoder too, the rest are two: about as long as a model's tokens.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = list_words(model.d_vocab - 2)
    vocabulary = {"<s>": 0, "</s>": 1} | {word: number for number, word in enumerate(words, start=2)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    object.__setattr__(model, "tokenizer", PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>"))
    # No token may end a text early.
    model.bridge.original_model.generation_config.eos_token_id = None


def list_words(count: int) -> list[str]:
    """So many different words, those of the sentence encoder's vocabulary first, then compounds of these."""
    known = sorted(load_encoder().tokenizer.get_vocab().items(), key=lambda item: item[1])
    words = [word for word, _ in known if word.isascii() and word.isalpha() and len(word) > 2]
    compounds = (f"{first}-{second}" for first in words for second in words[:10])
    return [*words, *islice(compounds, max(0, count - len(words)))][:count]


def draw_words(source: random.Random, count: int) -> str:
    """A text of so many words."""
    return " ".join(source.choices(list_words(WORDS), k=count))


def write_bank(model: Model, folder: Path, length: int) -> Retriever:
    """A bank of references of a length in tokens, the two of the prefix counted, with its index open."""
    source = random.Random(length)
    rows = [json.dumps({"id": f"d{row}", "text": draw_words(source, length - 2)}) for row in range(DOCUMENTS)]
    folder.mkdir()
    (folder / "documents.jsonl").write_text("\n".join(rows))
    recipe = Recipe(choose_first_half(model), prefix=" ".join(list_words(2)))
    files = list_files([folder / "documents.jsonl"])
    write_documents(model, files, folder / "bank", recipe, "bfloat16", 8, lambda *_: None)
    retriever = Retriever(open_bank(folder / "bank", model))
    retriever.open()
    return retriever


def compare_reading(model: Model, retriever: Retriever, options: argparse.Namespace) -> dict[str, object]:
    """Seconds of a pass over 64 tokens and of one that reads 5 memories."""
    tokens = torch.randint(2, WORDS, (1, CHUNK), generator=torch.Generator().manual_seed(0))
    ids = tuple(f"d{row}" for row in range(MEMORIES))
    hooks = Reader(model, Attachment(fetch_memories(retriever.bank, model, ids))).list_hooks()

    def read() -> None:
        with torch.no_grad():
            model.run(tokens, hooks)

    row = measure({"bare": lambda: run_forward(model, tokens), "reading": read}, options.repeats, options.clock)
    return {"bare forward, s": row["bare"], "reading 5 memories / bare": row["reading"] / row["bare"]}


def decode(model: Model, ids: list[int], tokens: int, choose: Choose | None, twin: Twin | None) -> int:
    """Generate; returns how many tokens came."""
    return sum(1 for _ in generate(model, ids, Decoding(tokens), choose, twin=twin))


def compare_decoding(model: Model, retriever: Retriever, options: argparse.Namespace) -> dict[str, object]:
    """Seconds of decoding with explicit memories, with them ready, and with the same references as text."""
    ids = model.tokenizer(draw_words(random.Random(0), PROMPT))["input_ids"]
    first = start_recaller(model, retriever)
    first(ids, PROMPT - CHUNK, PROMPT)
    texts = [one.text for one in first.recalls[0].found]
    whole = model.tokenizer(" ".join(texts))["input_ids"] + ids
    chosen = tuple(one.id for one in first.recalls[0].found)
    blocks = fetch_memories(retriever.bank, model, chosen)

    def ready(tokens: object, start: int, end: int) -> ExplicitBlocks:
        return blocks

    twin = build_twin(model)
    row = measure(
        {
            "explicit": lambda: decode(model, ids, options.tokens, start_recaller(model, retriever), twin),
            "ready": lambda: decode(model, ids, options.tokens, ready, twin),
            "text": lambda: decode(model, whole, options.tokens, None, twin),
            "hooked": lambda: decode(model, whole, options.tokens, None, None),
            "retrieval": lambda: start_recaller(model, retriever)(ids, PROMPT - CHUNK, PROMPT),
        },
        options.repeats,
        options.clock,
    )
    return {
        "text, tokens/s": options.tokens / row["text"],
        "text with hooks, tokens/s": options.tokens / row["hooked"],
        "explicit, tokens/s": options.tokens / row["explicit"],
        "one retrieval, s": row["retrieval"],
        "explicit / text": row["text"] / row["explicit"],
        "explicit / text that was found": (row["text"] + row["retrieval"]) / row["explicit"],
        "ready / text": row["text"] / row["ready"],
    }


def start_recaller(model: Model, retriever: Retriever) -> Recaller:
    """A recaller that holds no memory yet; no filter, random words hold nothing."""
    return Recaller(model, retriever, MemoryCache(retriever.bank.select, 64), MEMORIES, overlap=1.0)


def list_rows(options: argparse.Namespace) -> Iterator[tuple[dict[str, object], dict[str, object]]]:
    """A row of reading and one of decoding for each model and reference length."""
    for shape, model in build_models(options):
        name_words(model)
        with tempfile.TemporaryDirectory() as temporary:
            for length in options.lengths:
                retriever = write_bank(model, Path(temporary) / str(length), length)
                names: dict[str, object] = {"shape": shape, "reference, tokens": length}
                yield (
                    names | compare_reading(model, retriever, options),
                    names | compare_decoding(model, retriever, options),
                )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--tokens", type=int, default=128)
    options = read_options(__doc__, ("llama",), parser)
    readings, decodings = zip(*list_rows(options), strict=True)
    print(describe(options))
    print_table(readings)
    print()
    print_table(decodings)


if __name__ == "__main__":
    main()
