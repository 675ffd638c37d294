"""Hand-set weights: a small Llama-shaped model in which every number of the stream has a name.

The stream has a number that is `LARGE` at every position (`one`), so large that nothing else moves the norms' scale;
norm weights undo that scale, and so behind a norm `one` reads 1 and every other number reads as it was written. Each
word of the vocabulary has a number that is 1 where the word stands; features have one each; the rest is *background*.

All that is not planted is random: heads and units read everything, write to the background, and leak a little
(`LEAK`) into the named numbers and the logits. So most edges carry something, and nearly nothing of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probes.models import quieten_libraries

LARGE = 1e4
BACKGROUND = 16
# Standard deviations of the random weights that read the stream and that write to its background, and the share of
# the latter that goes into named numbers and of the former into logits.
READING, WRITING, LEAK = 0.3, 0.1, 0.05
WIDTH, HEADS, KV_HEADS, D_HEAD, UNITS = 32, 4, 2, 16, 8
# With this base the second half of a head's eight pairs turns by less than 0.001 a position: they compare contents.
ROTARY_BASE = 1e6
CONTENT = (4, 5, 6, 7, 12, 13, 14, 15)

Weights = Mapping[str, float]


class Sketch:
    """Weights of one model, random until `match`, `move`, `follow`, `fire`, `read_out` plant something.

    `words` are the vocabulary beside `<s>` and `<unk>`; `features` the numbers that circuits use to pass things on.
    """

    def __init__(self, layers: int, words: Sequence[str], features: Sequence[str], seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.layers = layers
        self.words = ("<s>", "<unk>", *words)
        names = ("one", *self.words, *features)
        self.place = {name: index for index, name in enumerate(names)}
        self.tensors = self._draw_model()
        self._matched: set[tuple[int, int]] = set()
        self._next_unit = [0] * layers

    def draw_reads(self, *shape: int) -> Float[Tensor, "*any d_model"]:
        """Random weights that read every number of the stream but `one`."""
        weights = torch.randn(*shape, WIDTH, generator=self.generator) * READING
        weights[..., 0] = 0.0
        return weights

    def draw_writes(self, *shape: int) -> Float[Tensor, "*any d_model"]:
        """Random weights that write to the background, and leak into named numbers (never into `one`)."""
        weights = self.draw_reads(*shape) * (WRITING / READING)
        weights[..., : len(self.place)] *= LEAK
        return weights

    def spell(self, weights: Weights) -> Float[Tensor, " d_model"]:
        """Vector of the stream with these numbers, all others 0."""
        vector = torch.zeros(WIDTH)
        for name, value in weights.items():
            vector[self.place[name]] = value
        return vector

    def match(self, layer: int, head: int, column: int, query: Weights, key: Weights, score: float) -> None:
        """Make a head score `score * query(destination) * key(source)` in one of eight columns, before its softmax.

        The first call clears the head's random queries and its key-value head's random keys.
        """
        self._clear_scores(layer, head)
        place = CONTENT[column]
        self._part(layer, "q_proj", head)[place] = self.spell(query) * score * D_HEAD**0.5
        self._part(layer, "k_proj", self.share(head))[place] = self.spell(key)

    def follow(self, layer: int, head: int, score: float) -> None:
        """Make a head attend to the position before its own: scores fall off as a cosine of the distance to it."""
        self._clear_scores(layer, head)
        query, key = self._part(layer, "q_proj", head), self._part(layer, "k_proj", self.share(head))
        angle = torch.tensor(1.0)
        query[0] = self.spell({"one": score * D_HEAD**0.5})
        key[0], key[D_HEAD // 2] = self.spell({"one": float(angle.cos())}), self.spell({"one": float(angle.sin())})

    def move(self, layer: int, head: int, column: int, read: Weights, write: Weights) -> None:
        """Make a head carry one number: what `read` finds at the source is added along `write` at the destination."""
        self._part(layer, "v_proj", self.share(head))[column] = self.spell(read)
        self._output(layer, head)[column] = self.spell(write)

    def fire(self, layer: int, gate: Weights, write: Weights) -> int:
        """Plant one FFN unit, `silu(gate) * one` along `write`; gives its index."""
        unit = self._next_unit[layer]
        self._next_unit[layer] += 1
        prefix = f"model.layers.{layer}.mlp."
        self.tensors[prefix + "gate_proj.weight"][unit] = self.spell(gate)
        self.tensors[prefix + "up_proj.weight"][unit] = self.spell({"one": 1.0})
        self.tensors[prefix + "down_proj.weight"][:, unit] = self.spell(write)
        return unit

    def read_out(self, word: str, weights: Weights) -> None:
        """Make a word's logit read these numbers, beside the leak."""
        self.tensors["lm_head.weight"][self.words.index(word)] += self.spell(weights)

    @staticmethod
    def share(head: int) -> int:
        """Key-value head of a head."""
        return head // (HEADS // KV_HEADS)

    def _draw_model(self) -> dict[str, Tensor]:
        count = len(self.words)
        embedding = self.draw_reads(count)
        embedding[:, : len(self.place)] = 0.0
        embedding[:, 0] = LARGE
        embedding[torch.arange(count), 1 + torch.arange(count)] = 1.0
        tensors = {
            "model.embed_tokens.weight": embedding,
            "model.norm.weight": self._undo_scale(),
            "lm_head.weight": self.draw_reads(count) * LEAK,
        }
        for layer in range(self.layers):
            tensors |= self._draw_layer(f"model.layers.{layer}.")
        return tensors

    def _draw_layer(self, prefix: str) -> dict[str, Tensor]:
        return {
            prefix + "input_layernorm.weight": self._undo_scale(),
            prefix + "post_attention_layernorm.weight": self._undo_scale(),
            prefix + "self_attn.q_proj.weight": self.draw_reads(HEADS * D_HEAD),
            prefix + "self_attn.k_proj.weight": self.draw_reads(KV_HEADS * D_HEAD),
            prefix + "self_attn.v_proj.weight": self.draw_reads(KV_HEADS * D_HEAD),
            prefix + "self_attn.o_proj.weight": self.draw_writes(HEADS * D_HEAD).T,
            prefix + "mlp.gate_proj.weight": self.draw_reads(UNITS),
            prefix + "mlp.up_proj.weight": self.draw_reads(UNITS),
            prefix + "mlp.down_proj.weight": self.draw_writes(UNITS).T,
        }

    def _undo_scale(self) -> Float[Tensor, " d_model"]:
        weight = torch.full((WIDTH,), LARGE * WIDTH**-0.5)
        weight[0] = WIDTH**-0.5
        return weight

    def _part(self, layer: int, projection: str, head: int) -> Float[Tensor, "d_head d_model"]:
        rows = self.tensors[f"model.layers.{layer}.self_attn.{projection}.weight"]
        return rows[head * D_HEAD : (head + 1) * D_HEAD]

    def _output(self, layer: int, head: int) -> Float[Tensor, "d_head d_model"]:
        return self.tensors[f"model.layers.{layer}.self_attn.o_proj.weight"].T[head * D_HEAD : (head + 1) * D_HEAD]

    def _clear_scores(self, layer: int, head: int) -> None:
        if (layer, head) in self._matched:
            return
        self._matched.add((layer, head))
        self._part(layer, "q_proj", head).zero_()
        self._part(layer, "k_proj", self.share(head)).zero_()

    def save(self, folder: Path) -> None:
        """Write a Hugging Face checkpoint with its tokenizer into a folder."""
        from transformers import LlamaConfig, LlamaForCausalLM

        quieten_libraries()
        config = LlamaConfig(
            vocab_size=len(self.words),
            hidden_size=WIDTH,
            intermediate_size=UNITS,
            num_hidden_layers=self.layers,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            head_dim=D_HEAD,
            max_position_embeddings=32,
            rope_parameters={"rope_type": "default", "rope_theta": ROTARY_BASE},
            bos_token_id=0,
            eos_token_id=None,
            tie_word_embeddings=False,
        )
        model = LlamaForCausalLM(config)
        model.load_state_dict(self.tensors)
        model.save_pretrained(folder)
        build_tokenizer(self.words).save_pretrained(folder)


def build_tokenizer(words: Sequence[str]) -> Any:
    """Tokenizer of one token a word, that puts `<s>` before every text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")
