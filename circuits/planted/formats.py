"""A planted fact of four places: each of anchor, bank, explicit memory and text writes a known share of the answer.

An FFN unit, a bank block, a memory and the text before the question write. What they write adds up in one number of the
stream, which the logits read, and nothing else moves the norms' scale; so the shares of a ledger are known beforehand.
With `saturate` an FFN of the last layer writes the answer once the number is above a threshold: then formats are
redundant.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from circuits.coalitions import Asked
from circuits.metrics import build_readout
from circuits.planted.facts import FIRING, GAIN, QUESTION, WORDS, detect
from circuits.planted.paths import STEEPNESS
from circuits.planted.planting import load_sketch
from circuits.planted.weights import CONTENT, D_HEAD, KV_HEADS, LEAK, READING, Sketch
from probes.attachments import Attachment, BankBlocks, ExplicitBlocks
from probes.models import Model

TEXT = "the capital of France is Paris"
# Formats in the order of a ledger's rows.
PLACES = ("anchor", "memory 1", "level 1", "text")


@dataclass(frozen=True, slots=True)
class PlantedLedger:
    """A model, its prompts, and the margin (in logits) that each place was given, by name."""

    model: Model
    asked: Asked
    shares: dict[str, float]


CARRIERS = ("paris", "found", "answer")


def silence_background(sketch: Sketch) -> None:
    """Stop the random background from writing the answer or into its logits: its share would not be planted."""
    places = [sketch.place[name] for name in CARRIERS]
    for name, tensor in sketch.tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor[places] = 0.0
    sketch.tensors["lm_head.weight"][[sketch.words.index(word) for word in ("Paris", "Rome")]] = 0.0


def look_hard(sketch: Sketch, layer: int, head: int, word: str) -> None:
    """Let a head attend to a word, or to `<s>`, so strongly that other words and memories get next to nothing."""
    sketch.match(layer, head, 0, {"one": 1.0}, {word: 1.0, "<s>": 0.5}, score=20.0)


def write_memory(sketch: Sketch) -> ExplicitBlocks:
    """Two memories of three slots at layer 1: the first slot of the first has the key and the value that are read."""
    shape = (1, 1, 2, KV_HEADS, 3, D_HEAD)
    keys, values = torch.zeros(shape), torch.randn(shape, generator=sketch.generator) * READING * LEAK
    values[0, 0, 0, 1, 0] = 0.0
    keys[0, 0, 0, 1, 0, CONTENT[0]] = 1.0
    values[0, 0, 0, 1, 0, 0] = 1.0
    return ExplicitBlocks(("facts", "others"), (1,), keys, values, torch.zeros(shape[:-1], dtype=torch.bool))


def write_blocks(sketch: Sketch, share: float) -> BankBlocks:
    """Two levels at layer 0: a unit of the first adds its share to what the subject is known for."""
    units = (4, 2)
    gate, up = (tuple(sketch.draw_reads(1, 1, count) for count in units) for _ in range(2))
    down = tuple(sketch.draw_writes(1, 1, count) for count in units)
    for tensor in down:
        tensor[..., [sketch.place[name] for name in CARRIERS]] = 0.0
    gate[0][0, 0, 1] = sketch.spell(detect("France"))
    up[0][0, 0, 1] = sketch.spell({"one": 1.0})
    down[0][0, 0, 1] = sketch.spell({"paris": share / FIRING})
    return BankBlocks((0, 0), (0,), {"gate": gate, "up": up, "down": down})


def plant_ledger(
    seed: int, shares: tuple[float, float, float, float] = (0.1, 0.4, 0.2, 0.3), saturate: bool = False
) -> PlantedLedger:
    """Plant a fact whose anchor, explicit memory, bank block and text write these shares of it (in this order)."""
    own, memory, bank, text = shares
    sketch = Sketch(3, WORDS, ("asked France", "paris", "found", "answer"), seed)
    silence_background(sketch)
    result = "found" if saturate else "answer"
    sketch.fire(0, detect("France"), {"paris": own / FIRING})
    look_hard(sketch, 0, 1, "France")
    sketch.move(0, 1, 0, {"France": 1.0}, {"asked France": 1.0})
    look_hard(sketch, 1, 1, "France")
    sketch.move(1, 1, 0, {"paris": 1.0}, {result: 1.0})
    sketch.match(1, 2, 0, {"asked France": 1.0}, {}, score=12.0)
    sketch.move(1, 2, 0, {}, {result: memory})
    look_hard(sketch, 2, 1, "Paris")
    sketch.move(2, 1, 0, {"Paris": 1.0}, {result: text})
    if saturate:
        for threshold, sign in ((0.25, 1.0), (0.75, -1.0)):
            gate = {"found": STEEPNESS, "one": -threshold * STEEPNESS}
            sketch.fire(2, gate, {"answer": sign * 2 / STEEPNESS})
    sketch.read_out("Paris", {"answer": GAIN})
    attachment = Attachment(write_memory(sketch), write_blocks(sketch, bank))
    model = load_sketch(sketch)
    return PlantedLedger(
        model, ask(model, attachment), dict(zip(PLACES, (GAIN * share for share in shares), strict=True))
    )


def ask(model: Model, attachment: Attachment) -> Asked:
    """The question, plain and behind the text that states the answer."""
    plain, behind = model.encode(QUESTION), model.encode(f"{TEXT} {QUESTION}")
    answer, foil = [model.encode_plain("Paris")], [model.encode_plain("Rome")]
    return Asked(
        plain=torch.tensor([plain]),
        readout=build_readout([len(plain)], answer, foil),
        attachment=attachment,
        with_text=torch.tensor([behind]),
        text_readout=build_readout([len(behind)], answer, foil),
        texts=torch.tensor([[1, 1 + len(behind) - len(plain), 1]]),
    )
