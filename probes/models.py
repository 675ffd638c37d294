"""The one seam to TransformerLens: load a checkpoint, read its weights, run it with hooks.

Nothing else in the project imports TransformerLens, and only its public hook points are used. A model whose residual
stream is not the sum that `probes/decomposition.py` lists is refused there at load, with the reason.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor

from probes.errors import UserError
from probes.experts import Experts, read_experts
from probes.memory_needs import require_room
from probes.norms import Norm
from probes.tokens import Remembered

Hook = tuple[str, Callable[..., Tensor | None]]

# What transformers, safetensors and TransformerLens raise for a missing, damaged or unknown checkpoint.
BOOT_ERRORS = (
    OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError, SafetensorError
)  # fmt: skip

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Weights that attribution needs of one layer, in TransformerLens shapes; biases are None where there are none.

    `query`, `key`, `value` [head or kv_head, d_model, d_head], `output` [head, d_head, d_model], `down` [unit, d_model]
    (what each unit of the MLP writes at activation 1; None for an MLP that is not one sum over units), `experts` of a
    mixture; the norms before attention and MLP (one and the same where a parallel model shares it), on queries and
    keys, and after attention and MLP (Gemma 2).
    """

    query: Float[Tensor, "head d_model d_head"]
    key: Float[Tensor, "kv_head d_model d_head"]
    value: Float[Tensor, "kv_head d_model d_head"]
    output: Float[Tensor, "head d_head d_model"]
    query_bias: Float[Tensor, "head d_head"] | None
    key_bias: Float[Tensor, "kv_head d_head"] | None
    value_bias: Float[Tensor, "kv_head d_head"] | None
    output_bias: Float[Tensor, " d_model"] | None
    down: Float[Tensor, "unit d_model"] | None
    down_bias: Float[Tensor, " d_model"] | None
    experts: Experts | None
    attention_norm: Norm
    mlp_norm: Norm
    query_norm: Norm | None
    key_norm: Norm | None
    post_attention_norm: Norm | None
    post_mlp_norm: Norm | None


@dataclass(frozen=True, slots=True)
class AttentionForm:
    """How attention scores come from queries and keys: `cap(scale * rotate(q) . rotate(k))`, measured at load.

    `frequencies[layer]` are radians a position of each pair of numbers that rotary embedding turns, none where nothing
    is turned (GPT-2, whose learned positions are in the stream); `soft_cap` is Gemma 2's `cap * tanh(score / cap)`.
    `shows_turned`: queries as they meet the keys are at a hook point of their own, `hook_rot_q`.
    """

    scale: float
    soft_cap: float | None
    frequencies: tuple[Float[Tensor, " half"], ...] = field(repr=False)
    shows_turned: bool = False

    @property
    def rotary(self) -> bool:
        """Whether queries and keys are turned by their positions."""
        return any(len(layer) for layer in self.frequencies)


@dataclass(frozen=True, slots=True)
class Model:
    """A hooked language model with what attribution must know of it.

    `sha256` is the hash of the weight files (or of the tensors, for a hub model). `parallel` models feed attention
    and MLP of a layer from the same stream. `attention` is None where the scores are no plain products of queries and
    keys, rotary or not (ALiBi, GPT-J's pairs): no explicit memory can be attached there. `base` is the model as it was
    loaded, where `weights` are those that attached LoRA blocks give it (`probes/adapters.py`).
    """

    name: str
    sha256: str
    architecture: str
    layers: int
    heads: int
    kv_heads: int
    d_model: int
    d_head: int
    d_vocab: int
    context: int
    parallel: bool
    tokenizer: Any
    bridge: Any = field(repr=False)
    weights: tuple[LayerWeights, ...] = field(repr=False)
    final_norm: Norm = field(repr=False)
    attention: AttentionForm | None = field(default=None, repr=False)
    lock: Any = field(default_factory=threading.RLock, repr=False)
    base: Model | None = field(default=None, repr=False)
    remembered: Remembered = field(default_factory=Remembered, repr=False, compare=False)

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return self.final_norm.weight.device

    def describe(self) -> dict[str, Any]:
        """JSON object for run files."""
        names = ("name", "sha256", "architecture", "layers", "heads", "kv_heads", "d_model", "d_head", "d_vocab")
        return {name: getattr(self, name) for name in (*names, "context", "parallel")} | {
            "dtype": str(self.final_norm.weight.dtype).removeprefix("torch.")
        }

    def run(
        self, tokens: Int[Tensor, "batch pos"], hooks: Sequence[Hook] = (), cache: Any = None
    ) -> Float[Tensor, "rows pos_or_step d_vocab"]:
        """Logits under the hooks, which are removed afterwards whatever happens. Takes the model's lock.

        A hook may change how many rows and positions there are from its point on; so the logits may differ in both.
        `cache` (`start_cache`) holds keys and values of the tokens before these, and is extended by theirs.
        """
        with self.lock, self.attach(hooks):
            logits: Tensor = self.bridge(
                tokens.to(self.device), return_type="logits", prepend_bos=False, past_key_values=cache
            )
        return logits

    def run_until(self, tokens: Int[Tensor, "batch pos"], hooks: Sequence[Hook], layer: int) -> None:
        """Run the layers before `layer` for what the hooks see of them; with as many as there are, the whole model.

        Hooks are removed afterwards whatever happens. Takes the model's lock.
        """
        with self.lock, self.attach(hooks):
            self.bridge(tokens.to(self.device), return_type="logits", prepend_bos=False, stop_at_layer=layer)

    def start_cache(self) -> Any:
        """An empty key-value cache of transformers, which keeps every token (sliding windows only mask)."""
        from transformers import DynamicCache

        return DynamicCache()

    @property
    def ends(self) -> frozenset[int]:
        """Tokens after which the checkpoint says that a text has ended."""
        config = getattr(self.bridge.original_model, "generation_config", None)
        found = getattr(config, "eos_token_id", None)
        return frozenset([found] if isinstance(found, int) else found or ())

    @contextmanager
    def attach(self, hooks: Sequence[Hook]) -> Iterator[None]:
        """Install hooks for the duration of a `with` block.

        Points are looked up by attribute: the bridge's own context lists every point of the model each time, which
        costs as much as a layer of one token.
        """
        held: list[tuple[Any, Any]] = []
        try:
            for name, function in hooks:
                point = reduce(getattr, name.split("."), self.bridge)
                held.append((point, point.add_hook(function)))
            yield
        finally:
            for point, handle in reversed(held):
                handle.hook.remove()
                point.fwd_hooks.remove(handle)

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, with the special tokens that the tokenizer itself puts before it.

        Raises UserError when the text is empty or longer than the context.
        """
        ids = self.remembered.encode(self.tokenizer, text, special=True)
        if not ids:
            raise UserError("the prompt is empty: type some text")
        if len(ids) > self.context:
            raise UserError(f"the prompt has {len(ids)} tokens and the model reads {self.context}: shorten it")
        return ids

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of a piece of text without special tokens."""
        return self.remembered.encode(self.tokenizer, text, special=False)

    def encode_ahead(self, prompts: Sequence[str], pieces: Sequence[str]) -> None:
        """Encode prompts and pieces of text that will be asked for, all at once, which costs less than one by one."""
        self.remembered.encode_ahead(self.tokenizer, prompts, special=True)
        self.remembered.encode_ahead(self.tokenizer, pieces, special=False)

    def decode(self, token: int) -> str:
        """Text of one token, spaces kept."""
        return self.remembered.decode(self.tokenizer, token)


def name_hook(layer: int, point: str) -> str:
    """Full name of a hook point in a layer."""
    return f"blocks.{layer}.{point}"


def quieten_libraries() -> None:
    """Keep the libraries' own log lines and bars off the terminal; their errors still raise."""
    import transformers

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def check_folder(name: str) -> Path | None:
    """Folder of a local checkpoint, or None for a hub name. Raises UserError for a path that is not a checkpoint."""
    path = Path(name).expanduser()
    if not path.is_dir():
        if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise UserError(f"no model folder at {name}: give a folder with config.json, or a hub name such as gpt2")
        return None
    if not (path / "config.json").is_file():
        raise UserError(f"{name} holds no config.json: it is not a Hugging Face checkpoint")
    if not any((path / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")):
        raise UserError(f"{name} holds no tokenizer (tokenizer.json): save it there with tokenizer.save_pretrained")
    if not any(path.glob("*.safetensors")):
        raise UserError(f"{name} holds no .safetensors weights: save them with save_pretrained (pickles are not read)")
    return path


def hash_weights(folder: Path | None, bridge: Any) -> str:
    """SHA-256 of the weight files in name order, or of the tensors in name order for a hub model."""
    digest = hashlib.sha256()
    if folder is not None:
        for path in sorted(folder.glob("*.safetensors")):
            with path.open("rb") as file:
                for chunk in iter(lambda: file.read(1 << 20), b""):
                    digest.update(chunk)
        return digest.hexdigest()
    for name, tensor in sorted(bridge.original_model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def is_refusal(error: Exception) -> bool:
    """Whether an error is one of a library about a checkpoint; tokenizers raises a bare Exception."""
    libraries = ("huggingface_hub", "transformers", "tokenizers")
    return isinstance(error, BOOT_ERRORS) or type(error) is Exception or type(error).__module__.startswith(libraries)


def boot(name: str, folder: Path | None, options: dict[str, Any]) -> Any:
    """TransformerBridge of a checkpoint. Raises UserError for what a person can mend."""
    quieten_libraries()
    from transformer_lens.model_bridge import TransformerBridge

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return TransformerBridge.boot_transformers(str(folder) if folder else name, **options)
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        raise UserError(f"{name} does not fit into memory: try --dtype bfloat16 or --device-map auto") from error
    except Exception as error:
        if not is_refusal(error):
            raise
        line = " ".join(str(error).split())[:300]
        raise UserError(f"cannot load {name}: {type(error).__name__}: {line}") from error


def load_model(
    name: str,
    dtype: str = "float32",
    device: str = "auto",
    device_map: str | None = None,
    trust_remote_code: bool = False,
    weights: Mapping[str, Tensor] | None = None,
) -> Model:
    """Load a local Hugging Face folder or a hub name through TransformerBridge, weights frozen.

    `device` is `auto` (CUDA where there is one, else CPU), or a torch device. No code of the checkpoint runs unless
    `trust_remote_code`. `weights` are those that another process shares (`share_weights`), which take the place of the
    model's own. Raises UserError for a missing or incomplete folder, an unknown architecture, a missing
    tokenizer, an unknown dtype or device, a model that will not fit into memory (said before anything is loaded), and a
    model whose stream is not the sum that attribution needs.
    """
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    folder = check_folder(name)
    options: dict[str, Any] = {"dtype": DTYPES[dtype], "trust_remote_code": trust_remote_code}
    if device_map is not None:
        options["device_map"] = device_map
    else:
        options["device"] = choose_device(device)
        require_room(name, folder, dtype, options["device"])
    bridge = boot(name, folder, options)
    if getattr(bridge, "tokenizer", None) is None:
        raise UserError(f"{name} came without a tokenizer: save one beside it with tokenizer.save_pretrained")
    bridge.eval()
    for parameter in bridge.parameters():
        parameter.requires_grad_(False)
    if weights is not None:
        for key, parameter in bridge.original_model.named_parameters():
            parameter.data = weights[key]
    model = build_model(name, hash_weights(folder, bridge), bridge)
    from probes.decomposition import check_decomposition, find_parts, measure_attention

    model = replace(model, weights=find_parts(model))
    check_decomposition(model)
    return replace(model, attention=measure_attention(model))


def share_weights(model: Model) -> dict[str, Tensor]:
    """Move a model's weights on the CPU into memory that other processes can map; gives them by name.

    Raises UserError when the system has no room for them there.
    """
    parameters = dict(model.bridge.original_model.named_parameters())
    try:
        return {name: parameter.data.share_memory_() for name, parameter in parameters.items()}
    except RuntimeError as error:
        line = " ".join(str(error).split())[:120]
        raise UserError(
            f"the weights cannot be shared between processes ({line}): give one process, or more shared memory "
            "(/dev/shm)"
        ) from error


def choose_device(device: str) -> str:
    """Device name; `auto` prefers CUDA. Raises UserError for a device that torch does not have here."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r} is not usable here ({str(error).splitlines()[0][:120]}): try cpu") from None
    return device


def read_norm(component: Any, config: Any) -> Norm | None:
    """Norm of a TransformerLens norm component, or None when there is no such component."""
    if component is None:
        return None
    weight = component.weight.detach()
    if getattr(config, "rmsnorm_uses_offset", False):
        weight = weight + 1.0
    bias = getattr(component, "bias", None)
    centred = "LN" in str(config.normalization_type)
    return Norm(weight, bias.detach() if isinstance(bias, Tensor) else None, float(config.eps), centred)


def read_layer(block: Any, config: Any) -> LayerWeights:
    """Weights of one TransformerLens block. Raises AttributeError when the block lacks attention or MLP."""
    attention = block.attn

    def fetch(component: Any, name: str) -> Any:
        tensor = getattr(component, name, None)
        return tensor.detach() if isinstance(tensor, Tensor) else None

    parts = dict(block.named_children())
    inner = dict(attention.named_children())
    before = require(read_norm(parts.get("ln1"), config))
    return LayerWeights(
        query=attention.W_Q.detach(),
        key=attention.W_K.detach(),
        value=attention.W_V.detach(),
        output=attention.W_O.detach(),
        query_bias=fetch(attention, "b_Q"),
        key_bias=fetch(attention, "b_K"),
        value_bias=fetch(attention, "b_V"),
        output_bias=fetch(attention, "b_O"),
        down=fetch(block.mlp, "W_out"),
        down_bias=fetch(block.mlp, "b_out"),
        experts=read_experts(block.mlp),
        attention_norm=before,
        mlp_norm=before if shares_norm(block, config) else require(read_norm(parts.get("ln2"), config)),
        query_norm=read_norm(inner.get("q_norm"), config),
        key_norm=read_norm(inner.get("k_norm"), config),
        post_attention_norm=read_norm(parts.get("ln1_post"), config),
        post_mlp_norm=read_norm(parts.get("ln2_post"), config),
    )


def shares_norm(block: Any, config: Any) -> bool:
    """Whether attention and MLP of a parallel block read through one norm (GPT-J, Phi)."""
    return bool(getattr(config, "parallel_attn_mlp", False)) and "ln2" not in dict(block.named_children())


def require(norm: Norm | None) -> Norm:
    """A norm that must be there. Raises AttributeError when it is not (norms elsewhere than before the readers)."""
    if norm is None:
        raise AttributeError("a norm before attention or MLP is missing")
    return norm


def build_model(name: str, sha256: str, bridge: Any) -> Model:
    """Model around a booted bridge. Raises UserError when the architecture lacks what attribution reads."""
    config = bridge.cfg
    try:
        weights = tuple(read_layer(block, config) for block in bridge.blocks)
        final_norm = require(read_norm(bridge.ln_final, config))
    except (AttributeError, NotImplementedError, ValueError) as error:
        architecture = getattr(config, "architecture", "this architecture")
        raise UserError(
            f"{name} ({architecture}) is not supported: its blocks are not attention and MLP behind norms ({error})"
        ) from error
    first, context, d_vocab = weights[0], int(config.n_ctx), int(config.d_vocab)
    if context < 1 or d_vocab < 1:
        raise UserError(f"{name} says that it has {context} positions and {d_vocab} tokens: mend its config.json")
    return Model(
        name=Path(name).name if Path(name).is_dir() else name,
        sha256=sha256,
        architecture=str(getattr(config, "architecture", "unknown")),
        layers=len(weights),
        heads=first.query.shape[0],
        kv_heads=first.key.shape[0],
        d_model=first.query.shape[1],
        d_head=first.query.shape[2],
        d_vocab=d_vocab,
        context=context,
        parallel=bool(getattr(config, "parallel_attn_mlp", False)),
        tokenizer=bridge.tokenizer,
        bridge=bridge,
        weights=weights,
        final_norm=final_norm,
    )
