"""The published figures of Memory^3 (Yang et al. 2024) that follow from its configuration, computed again."""

from __future__ import annotations

from probes.codes import PAPER_CODE, read_code
from workbench.costs.formats import Usage, compare_formats, measure_storage, run_forward
from workbench.costs.published import Claim
from workbench.costs.shapes import Shape

# Appendix A. The FFN is as wide as the model; 60,416 tokens is the padded vocabulary.
SHAPE = Shape(
    layers=44, heads=40, kv_heads=8, d_head=80, d_model=3200, d_ffn=3200, vocabulary=60416, gated=True, tied=True
)
USAGE = Usage(depth=22, memory_layers=22, reference=128, kept=8, chunk=64, training=2048)
REFERENCES = 1.12e8
CODE_BYTES = read_code(PAPER_CODE, SHAPE.d_head).bytes
ABLATION_SHAPE = Shape(
    layers=40, heads=32, kv_heads=8, d_head=64, d_model=2048, d_ffn=2048, vocabulary=60416, gated=True, tied=True
)


def count_retrievals(prompt: int, generated: int, chunk: int) -> int:
    """Retrievals that decoding waits for: one a chunk of the whole text but the last, whose memories nobody reads."""
    return (prompt + generated) // chunk - 1


def list_claims() -> list[Claim]:
    """Every figure, in the order of the paper."""
    formats = compare_formats(SHAPE, USAGE)
    low, high = formats.interval
    storage = measure_storage(SHAPE, USAGE, REFERENCES, CODE_BYTES)
    kept = USAGE.memory_layers * 2 * SHAPE.kv_heads * USAGE.kept * SHAPE.d_head
    chunks, memories, tokens = 4, 5, 256
    share = 100 * chunks * memories * formats.read["explicit"] / run_forward(SHAPE, tokens).total
    return [
        Claim("write into parameters", "2.24", formats.write["parameters"], "TFlops", "exact", "appendix A"),
        Claim("write an explicit memory", "0.308", formats.write["explicit"], "TFlops", "exact", "appendix A"),
        Claim("read an explicit memory", "1.44e-4", formats.read["explicit"], "TFlops", "exact", "appendix A"),
        Claim("read text", "0.624", formats.read["text"], "TFlops", "exact", "appendix A"),
        Claim("explicit is cheapest above", "0.494", low, "reads", "exact", "appendix A"),
        Claim("explicit is cheapest below", "13400", high, "reads", "exact", "appendix A"),
        Claim("reading 5 memories a chunk, share of the forward", "0.228", share, "%", "inferred", "remark 8"),
        Claim("non-embedding parameters", "2.4e9", SHAPE.block_weights, "numbers", "exact", "section 3.4"),
        Claim("parameters of the ablation model", "0.92e9", count_ablation(), "numbers", "inferred", "section 3.6"),
        Claim("numbers of one explicit memory", "225280", kept, "numbers", "exact", "section 3.1"),
        Claim("all memories, dense", "7.17", storage.dense / 2**50, "PiB", "exact", "section 3.3"),
        Claim("all memories, sparse", "45.9", storage.sparse / 2**40, "TiB", "exact", "section 3.3"),
        Claim("all memories, compressed", "4.02", storage.compressed / 2**40, "TiB", "exact", "section 3.3"),
        Claim("bytes of a compressed key or value", "14", CODE_BYTES, "bytes", "exact", "appendix B"),
        Claim("sparsity", "160", storage.dense / storage.sparse, "times", "exact", "section 3.3"),
        Claim("sparsity with compression", "1830", storage.dense / storage.compressed, "times", "exact", "section 3.3"),
        Claim(
            "retrievals for 128 tokens after 128", "3", count_retrievals(128, 128, 64), "times", "exact", "speed test"
        ),
    ]


def count_ablation() -> int:
    """Parameters of the 0.92 B model outside the embedding; eight key-value heads are inferred from the total."""
    return ABLATION_SHAPE.block_weights


def list_placements() -> list[tuple[float, str, str]]:
    """Expected reads, the format that figure 4 gives, and ours."""
    formats = compare_formats(SHAPE, USAGE)
    wanted = ((0.4, "text"), (1.0, "explicit"), (13000.0, "explicit"), (13500.0, "parameters"))
    return [(reads, form, formats.place(reads)) for reads, form in wanted]
