"""Operations to write a reference into each memory format, and to read it: where a text is cheapest to keep.

Source: Yang et al. 2024 (Memory^3), section 2.3 and appendix A. One multiplication with its addition counts as two
operations. The formulas are the paper's, with two readings spelt out: `d` in terms of attention is heads x d_head
(the paper's model has both equal), and an FFN without a gate has two matrices instead of three.
"""

from __future__ import annotations

from dataclasses import dataclass

from workbench.costs.shapes import Shape

TERA = 1e12


@dataclass(frozen=True, slots=True)
class Usage:
    """How memories are written and read.

    `depth` is the number of layers run to write one (one more than the deepest memory layer), `memory_layers` how
    many layers keep and read it. Lengths are in tokens: the reference, what is kept of it per key-value head, the
    chunk that reads it, and a training sequence.
    """

    depth: int
    memory_layers: int
    reference: int = 128
    kept: int = 8
    chunk: int = 64
    training: int = 2048


@dataclass(frozen=True, slots=True)
class Cost:
    """Operations in TFlops, by what they are spent on."""

    terms: dict[str, float]

    @property
    def total(self) -> float:
        """Sum of the terms, in TFlops."""
        return sum(self.terms.values())


def make_cost(factor: float, **terms: float) -> Cost:
    """A cost from multiplications, each counted `factor` times, in TFlops."""
    return Cost({name.replace("_", " "): factor * value / TERA for name, value in terms.items()})


def write_parameters(shape: Shape, usage: Usage) -> Cost:
    """One training step on the reference (forward 2, backward 4): the least it takes to store it in the parameters.

    Appendix A assumes that one step stores it; the truth is likely dearer. Reading is free.
    """
    half = usage.training / 2
    return make_cost(
        6,
        attention_matrices=shape.layers * usage.reference * shape.attention_weights,
        attention_scores=shape.layers * 2 * usage.reference * half * shape.d_attention,
        FFN=shape.layers * usage.reference * shape.ffn_weights,
        logits=usage.reference * shape.vocabulary * shape.d_model,
    )


def write_explicit(shape: Shape, usage: Usage) -> Cost:
    """Encoding the reference up to the deepest memory layer (whose FFN is not needed), and scoring its tokens."""
    return make_cost(
        2,
        attention_matrices=usage.depth * usage.reference * shape.attention_weights,
        attention_scores=usage.depth * 2 * usage.reference**2 / 2 * shape.d_attention,
        FFN=(usage.depth - 1) * usage.reference * shape.ffn_weights,
        choice_of_tokens=usage.memory_layers * usage.reference**2 * shape.d_attention,
    )


def read_explicit(shape: Shape, usage: Usage) -> Cost:
    """One chunk attends to the kept tokens of one memory."""
    return make_cost(2, attention_scores=usage.memory_layers * 2 * usage.chunk * usage.kept * shape.d_attention)


def write_text() -> Cost:
    """A text is kept as it is: nothing."""
    return make_cost(2, nothing=0.0)


def read_text(shape: Shape, usage: Usage) -> Cost:
    """The reference is run in the prompt (the last layer's FFN is not needed), and one chunk attends to it."""
    return make_cost(
        2,
        attention_matrices=shape.layers * usage.reference * shape.attention_weights,
        attention_scores=shape.layers * 2 * usage.reference * (usage.reference / 2 + usage.chunk) * shape.d_attention,
        FFN=(shape.layers - 1) * usage.reference * shape.ffn_weights,
    )


def run_forward(shape: Shape, tokens: int) -> Cost:
    """A forward pass over tokens without logits."""
    return make_cost(
        2,
        attention_matrices=shape.layers * tokens * shape.attention_weights,
        attention_scores=shape.layers * 2 * tokens * tokens / 2 * shape.d_attention,
        FFN=shape.layers * tokens * shape.ffn_weights,
    )


@dataclass(frozen=True, slots=True)
class Formats:
    """Write and read costs of the three formats, in TFlops."""

    write: dict[str, float]
    read: dict[str, float]

    @property
    def interval(self) -> tuple[float, float]:
        """Expected reads between which explicit memory is cheapest: above the first, below the second."""
        low = (self.write["explicit"] - self.write["text"]) / (self.read["text"] - self.read["explicit"])
        high = (self.write["parameters"] - self.write["explicit"]) / (self.read["explicit"] - self.read["parameters"])
        return low, high

    def cost(self, form: str, reads: float) -> float:
        """Writing once and reading `reads` times, in TFlops."""
        return self.write[form] + reads * self.read[form]

    def place(self, reads: float) -> str:
        """The cheapest format for this many reads (equation 2); ties go to the one that is cheaper to write."""
        return min(("text", "explicit", "parameters"), key=lambda form: self.cost(form, reads))


def compare_formats(shape: Shape, usage: Usage) -> Formats:
    """Costs of keeping one reference as text, as explicit memory, or in the parameters."""
    return Formats(
        write={
            "text": write_text().total,
            "explicit": write_explicit(shape, usage).total,
            "parameters": write_parameters(shape, usage).total,
        },
        read={
            "text": read_text(shape, usage).total,
            "explicit": read_explicit(shape, usage).total,
            "parameters": 0.0,
        },
    )


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes of explicit memories of many references: dense, sparse, and sparse with compressed vectors."""

    dense: float
    sparse: float
    compressed: float


def measure_storage(shape: Shape, usage: Usage, references: float, code_bytes: float) -> Storage:
    """Bytes at two a number; `code_bytes` is the size of one compressed vector of d_head numbers.

    Dense is the paper's comparison: every token of the reference at every layer and every *query* head, as a model
    without shared key-value heads would keep it.
    """
    vectors = references * usage.memory_layers * 2 * shape.kv_heads * usage.kept
    dense = references * shape.layers * 2 * shape.heads * usage.reference * shape.d_head * 2
    return Storage(dense, vectors * shape.d_head * 2, vectors * code_bytes)
