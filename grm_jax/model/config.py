"""The shape of a Gemma-2 model, and its two-way map to a Hugging Face `config.json`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from grm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Gemma2Config:
    """Static shape and constants of a Gemma-2 model. Layers alternate: even ones local (sliding window), odd ones global.

    Attributes:
        vocab_size: rows of the tied embedding (V).
        model_dim: width of the residual stream (D).
        mlp_dim: width of the gated feed-forward layer (F).
        num_layers: layers (L), even: they come in (local, global) pairs.
        num_heads: query heads (N), a multiple of `num_kv_heads`.
        num_kv_heads: key/value heads (K).
        head_dim: width of a head (H), even (rotary halves).
        window: a local query sees this many keys, itself included.
        query_pre_attn_scalar: queries are multiplied by its inverse square root; not `head_dim` for 27b.
        attention_soft_cap: attention logits become cap * tanh(logits / cap); None leaves them.
        final_soft_cap: the same for the output logits.
        max_length: the longest sequence the model was made for, in tokens.
    """

    vocab_size: int
    model_dim: int
    mlp_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    window: int = 4096
    query_pre_attn_scalar: int = 256
    attention_soft_cap: float | None = 50.0
    final_soft_cap: float | None = 30.0
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-6
    max_length: int = 8192

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "model_dim",
            "mlp_dim",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "head_dim",
            "window",
            "query_pre_attn_scalar",
            "max_length",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"model config: {name} must be a positive integer, not {value!r}")
        if self.num_layers % 2:
            raise UserError(
                f"model config: num_layers is {self.num_layers}; Gemma-2 layers come in (local, global) pairs, give an even number"
            )
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"model config: num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise UserError(f"model config: head_dim is {self.head_dim}; rotary embedding needs an even number")
        for name in ("attention_soft_cap", "final_soft_cap"):
            cap = getattr(self, name)
            if cap is not None and not cap > 0:
                raise UserError(f"model config: {name} must be positive or None, not {cap!r}")

    @property
    def num_pairs(self) -> int:
        """(local, global) pairs of layers."""
        return self.num_layers // 2


PRESETS = {
    "tiny": Gemma2Config(
        vocab_size=416, model_dim=128, mlp_dim=256, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=32, window=64,
        query_pre_attn_scalar=48, attention_soft_cap=20.0, final_soft_cap=15.0, max_length=320,
    ),
    "2b": Gemma2Config(
        vocab_size=256_000, model_dim=2304, mlp_dim=9216, num_layers=26, num_heads=8, num_kv_heads=4, head_dim=256
    ),
    "9b": Gemma2Config(
        vocab_size=256_000, model_dim=3584, mlp_dim=14_336, num_layers=42, num_heads=16, num_kv_heads=8, head_dim=256
    ),
    "27b": Gemma2Config(
        vocab_size=256_000, model_dim=4608, mlp_dim=36_864, num_layers=46, num_heads=32, num_kv_heads=16, head_dim=128,
        query_pre_attn_scalar=144,
    ),
}  # fmt: skip

# our name -> name in a Hugging Face config.json
HUGGING_FACE_NAMES = {
    "vocab_size": "vocab_size",
    "model_dim": "hidden_size",
    "mlp_dim": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "window": "sliding_window",
    "query_pre_attn_scalar": "query_pre_attn_scalar",
    "attention_soft_cap": "attn_logit_softcapping",
    "final_soft_cap": "final_logit_softcapping",
    "norm_epsilon": "rms_norm_eps",
    "max_length": "max_position_embeddings",
}
_OPTIONAL = {"attention_soft_cap", "final_soft_cap"}  # a null in config.json means: no cap
_TANH_GELU = {"gelu_pytorch_tanh", "gelu"}  # early Gemma-2 folders say "gelu" and mean the tanh form


def config_from_hugging_face(data: Mapping[str, Any], where: str = "config.json") -> Gemma2Config:
    """Reads a Hugging Face Gemma-2 config, in the old form (`rope_theta`) or that of transformers 5 (`rope_parameters`).

    Args:
        data: the parsed JSON object.
        where: the file's name, for messages.

    Raises:
        UserError: another architecture, a missing field, or a variant whose mathematics this model does not have.
    """
    if data.get("model_type") != "gemma2":
        raise UserError(f"{where}: model_type is {data.get('model_type')!r}; only 'gemma2' models can be read")
    missing = [name for name in HUGGING_FACE_NAMES.values() if name not in data]
    if missing:
        raise UserError(f"{where}: missing field(s) {', '.join(missing)}")
    for name in HUGGING_FACE_NAMES.values():
        value = data[name]
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            optional = any(HUGGING_FACE_NAMES[ours] == name for ours in _OPTIONAL)
            if not (optional and value is None):
                raise UserError(f"{where}: {name} must be a number, not {value!r}")
    _refuse_variants(data, where)
    values = {ours: data[theirs] for ours, theirs in HUGGING_FACE_NAMES.items()}
    values["query_pre_attn_scalar"] = _whole(values["query_pre_attn_scalar"])
    return Gemma2Config(**values, rope_theta=_rope_theta(data, where))


def _whole(value: float) -> float:
    """256.0 as 256: some folders write whole numbers as floats."""
    return int(value) if value == int(value) else value


def _rope_theta(data: Mapping[str, Any], where: str) -> float:
    parameters = data.get("rope_parameters")
    if parameters is None:
        if data.get("rope_scaling") is not None:
            raise UserError(f"{where}: rope_scaling is set; Gemma-2 has plain rotary embedding, remove it")
        return float(data.get("rope_theta", 10_000.0))
    if not isinstance(parameters, Mapping) or parameters.get("rope_type", "default") != "default":
        raise UserError(f"{where}: rope_parameters must be of type 'default', not {parameters!r}")
    return float(parameters.get("rope_theta", 10_000.0))


def _refuse_variants(data: Mapping[str, Any], where: str) -> None:
    activation = data.get("hidden_activation") or data.get("hidden_act") or "gelu_pytorch_tanh"
    if activation not in _TANH_GELU:
        raise UserError(f"{where}: activation {activation!r}; Gemma-2 uses 'gelu_pytorch_tanh'")
    if data.get("attention_bias"):
        raise UserError(f"{where}: attention_bias is true; Gemma-2 has no biases")
    if data.get("tie_word_embeddings") is False:
        raise UserError(f"{where}: tie_word_embeddings is false; this model's output is its embedding")
    layer_types = data.get("layer_types")
    expected = ["sliding_attention", "full_attention"] * (int(data["num_hidden_layers"]) // 2)
    if layer_types is not None and list(layer_types) != expected:
        raise UserError(f"{where}: layer_types must alternate sliding_attention, full_attention")
    if data.get("use_bidirectional_attention"):
        raise UserError(f"{where}: use_bidirectional_attention is true; a judge needs causal attention")


def config_to_hugging_face(config: Gemma2Config, dtype: str = "float32") -> dict[str, Any]:
    """Writes the config in a form that both old and new transformers read. `dtype` is the stored weights' type."""
    data: dict[str, Any] = {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2"}
    data |= {theirs: getattr(config, ours) for ours, theirs in HUGGING_FACE_NAMES.items()}
    data |= {
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "layer_types": ["sliding_attention", "full_attention"] * config.num_pairs,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "torch_dtype": dtype,
        "dtype": dtype,
    }
    return data
