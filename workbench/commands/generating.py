"""`generate`: text that goes on from a prompt, with memories found anew for every chunk, and blocks of a bank."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from workbench.commands.command import Answer, Command, list_choices
from workbench.commands.terminal import clean_lines, format_pairs, format_table, show_progress
from workbench.library import find_shipped, read_shipped_facts
from workbench.settings import READINGS

if TYPE_CHECKING:
    from probes.models import Model
    from workbench.banks.fetching import Fetcher
    from workbench.generation import Decoding
    from workbench.memory.retrieval import Recaller


def declare_generate(parser: argparse.ArgumentParser) -> None:
    """Prompt, model, memories, and how tokens are drawn."""
    parser.add_argument("--prompt", metavar="TEXT", required=True, help="the text to go on from")
    parser.add_argument(
        "--text", metavar="none|FILE", default="none", help="text to put before the prompt (default: %(default)s)"
    )
    parser.add_argument("--model", metavar="NAME|FOLDER", default="shipped", help="`shipped`, a folder, or a hub name")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="precision")
    parser.add_argument("--device", metavar="NAME", default="auto", help="`auto`, `cpu`, `cuda`, `mps`")
    drawing = parser.add_argument_group("decoding")
    drawing.add_argument(
        "--tokens", metavar="N", type=int, default=128, help="tokens to generate at most (default: %(default)s)"
    )
    drawing.add_argument(
        "--temperature",
        metavar="T",
        type=float,
        default=0.0,
        help="0 takes the most probable token, above it tokens are drawn (default: %(default)s)",
    )
    drawing.add_argument("--seed", metavar="N", type=int, default=0, help="of the drawing (default: %(default)s)")
    declare_recall(parser)
    declare_fetch(parser)


def declare_recall(parser: argparse.ArgumentParser) -> None:
    """Which memories are read."""
    group = parser.add_argument_group("memories")
    group.add_argument(
        "--memory", metavar="none|BANK", default="none", help="folder of a bank of explicit memories (default: none)"
    )
    group.add_argument(
        "--documents",
        metavar="DOCS",
        nargs="+",
        default=[],
        help="instead of a bank: .txt, .md, .jsonl, .csv, .parquet, or folders, of which a memory is written when it "
        "is first found (cold start); for many documents write a bank with `memory write`",
    )
    group.add_argument(
        "--memories", metavar="N", type=int, default=5, help="memories a chunk; 0 reads none (default: %(default)s)"
    )
    group.add_argument(
        "--memory-ids", metavar="A,B", default="", help="read these memories throughout instead of searching"
    )
    group.add_argument(
        "--chunk", metavar="N", type=int, default=64, help="tokens that read one set of memories (default: %(default)s)"
    )
    group.add_argument(
        "--overlap",
        metavar="X",
        type=float,
        default=2 / 3,
        help="leave out memories of whose words, in order, the text so far holds more than this share; 1 leaves out "
        "none (default: 2/3)",
    )
    group.add_argument(
        "--start",
        choices=("warm", "cold"),
        default="warm",
        help="warm: memories as they lie in the bank; cold: each is written from its text when it is first found",
    )
    group.add_argument(
        "--faithful",
        action="store_true",
        help="read the bank's prefix, `<s>Reference:`, beside the memories at every head of every layer, as the paper "
        "does; a model must have been trained so, the shipped one was not",
    )
    group.add_argument(
        "--cache", metavar="N", type=int, default=64, help="memories held ready, least recently used out first"
    )


def declare_fetch(parser: argparse.ArgumentParser) -> None:
    """Which blocks of a bank are read."""
    group = parser.add_argument_group("memory blocks")
    group.add_argument(
        "--bank",
        metavar="none|auto|FOLDER",
        default="none",
        help="bank of parametric memory blocks; auto: the shipped one (default: %(default)s)",
    )
    group.add_argument(
        "--reading",
        choices=tuple(READINGS),
        default="fetched",
        help=f"which of its blocks are read; {list_choices(READINGS)} (default: %(default)s)",
    )
    group.add_argument(
        "--routing",
        choices=("prompt", "chunk"),
        default="prompt",
        help="blocks are chosen once by the whole prompt, or anew for every chunk by its own tokens (default: "
        "%(default)s)",
    )


def open_fetcher(options: argparse.Namespace, model: Model) -> Fetcher | None:
    """What routes the text and fetches blocks as the options say; None without any."""
    if options.bank == "none":
        return None
    from probes.bank import load_bank
    from workbench.banks.fetching import Fetcher
    from workbench.engine import find_store

    folder = find_store(options.bank, "bank", find_shipped() if options.model == "shipped" else None)
    if folder is None:
        raise UserError(f"no bank came with {options.model}: give the folder of one with --bank")
    facts = read_shipped_facts() if options.model == "shipped" else ()
    return Fetcher(model, load_bank(folder, model), options.reading, options.routing, facts, options.seed)


def open_recaller(options: argparse.Namespace, model: Model, tick: Any) -> Recaller | None:
    """What finds and loads memories as the options say; None without any."""
    if options.memory != "none" and options.documents:
        raise UserError("--memory and --documents both say where memories come from: give one of them")
    if options.memory == "none" and not options.documents and options.memory_ids:
        raise UserError("--memory-ids names memories of a bank: give its folder with --memory")
    if (options.memory == "none" and not options.documents) or (not options.memories and not options.memory_ids):
        return None
    if options.documents:
        return open_documents(options, model, tick)
    from probes.memory_bank import open_bank
    from probes.prefix import read_prefix
    from workbench.memory.cache import MemoryCache
    from workbench.memory.retrieval import Recaller, Retriever, split_ids, write_at_need

    bank = open_bank(Path(options.memory).expanduser(), model)
    retriever = Retriever(bank, tick=tick)
    load = bank.select if options.start == "warm" else write_at_need(model, retriever)
    ids = split_ids(bank, options.memory_ids)
    if not ids:
        retriever.open()
    prefix = read_prefix(model, bank.prefix, bank.offset) if options.faithful else None
    return Recaller(model, retriever, MemoryCache(load, options.cache), options.memories, options.overlap, ids, prefix)


def open_documents(options: argparse.Namespace, model: Model, tick: Any) -> Recaller:
    """What finds references of documents and writes their memories when they are read."""
    from probes.prefix import read_prefix
    from workbench.commands.memory import default_recipe
    from workbench.memory.cache import MemoryCache
    from workbench.memory.cold import DocumentRetriever
    from workbench.memory.documents import list_files
    from workbench.memory.retrieval import Recaller, split_ids

    files = list_files([Path(name).expanduser() for name in options.documents])
    recipe = default_recipe(options.model == "shipped", model)
    retriever = DocumentRetriever(model, files, recipe, tick=tick)
    ids = split_ids(retriever, options.memory_ids)
    if not ids:
        retriever.open()
    prefix = read_prefix(model, recipe.prefix, recipe.offset) if options.faithful else None
    cache = MemoryCache(retriever.write, options.cache)
    return Recaller(model, retriever, cache, options.memories, options.overlap, ids, prefix)


def read_decoding(options: argparse.Namespace) -> Decoding:
    """How tokens are drawn."""
    from workbench.generation import Decoding

    return Decoding(options.tokens, options.chunk, options.temperature, options.seed)


def stream_tokens(model: Model, tokens: Any, shown: bool) -> list[int]:
    """Draw all tokens; where they are `shown`, each goes to standard output as soon as its characters are whole."""
    from workbench.generation import join_tokens

    drawn: list[int] = []
    try:
        for token, text in join_tokens(model.tokenizer, tokens):
            drawn.append(token)
            if shown and text:
                print(clean_lines(text), end="", flush=True)
    finally:
        # Whatever comes next, an error too, begins a line of its own.
        if shown and drawn:
            print(flush=True)
    return drawn


def describe_recalls(recaller: Recaller | None) -> str:
    """How often memories were fetched, and which."""
    if recaller is None:
        return format_pairs([("retrievals", 0)])
    rows = [
        [f"{recall.start}-{recall.end}", one.similarity, one.id, one.document, one.text]
        for recall in recaller.recalls
        for one in recall.found
    ]
    counts = format_pairs([
        ("retrievals", len(recaller.recalls)),
        ("memories loaded", recaller.cache.misses),
        ("found in the cache", recaller.cache.hits),
    ])  # fmt: skip
    return f"{counts}\n\n{format_table(('query tokens', 'cosine', 'memory', 'document', 'text'), rows, width=60)}"


def describe_fetches(fetcher: Fetcher | None) -> str:
    """Which blocks were read, and why those; nothing without a bank."""
    if fetcher is None:
        return ""
    rows = [[f"{fetch.start}-{fetch.end}", fetch.note] for fetch in fetcher.fetches]
    return f"\n\n{format_table(('routed tokens', 'blocks read'), rows, width=100)}"


def generate_text(options: argparse.Namespace) -> Answer:
    """Generate, streaming to a terminal, and say which memories were read."""
    if not options.prompt.strip():
        raise UserError("the prompt is empty: type some text")
    if options.memories < 0:
        raise UserError(f"--memories is {options.memories}: give 0 for none, or more")
    from probes.decoding import build_twin
    from probes.models import load_model
    from workbench.cases import read_text
    from workbench.generation import generate
    from workbench.library import read_template

    text = read_text(options.text, None)
    name = str(find_shipped() / "model") if options.model == "shipped" else options.model
    with show_progress() as tick:
        tick("loading the model", 0, 0)
        model = load_model(name, options.dtype, options.device)
        prompt = read_template(find_shipped()).format(document=text, prompt=options.prompt) if text else options.prompt
        ids, decoding = model.encode(prompt), read_decoding(options)
        decoding.check(model, len(ids))
        recaller, fetcher = open_recaller(options, model, tick), open_fetcher(options, model)
        twin = build_twin(model) if fetcher is None else None
    tokens = stream_tokens(model, generate(model, ids, decoding, recaller, fetcher, twin), shown=not options.json)
    ended = tokens[-1] in model.ends
    document = {
        "model": model.describe(),
        "prompt": prompt,
        "prompt_tokens": len(ids),
        "text": model.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False),
        "tokens": [{"id": token, "text": model.decode(token)} for token in tokens],
        "ended": ended,
        "retrievals": len(recaller.recalls) if recaller is not None else 0,
        "chunks": [recall.to_json() for recall in recaller.recalls] if recaller is not None else [],
        "memory": recaller.describe() if recaller is not None else None,
        "bank": fetcher.describe() if fetcher is not None else None,
    }
    if options.json:
        return Answer(document, "")
    counts = [("prompt", f"{len(ids)} tokens"), ("generated", f"{len(tokens)} tokens"), ("end of text", ended)]
    return Answer(document, f"\n{format_pairs(counts)}\n{describe_recalls(recaller)}{describe_fetches(fetcher)}")


GENERATE = Command(
    "generate",
    "Go on from a prompt, with explicit memories that are found anew for every 64 tokens, and blocks of a bank.",
    'memory-circuits generate --prompt "The capital of France is" --memory bank --tokens 128',
    declare_generate,
    generate_text,
)
