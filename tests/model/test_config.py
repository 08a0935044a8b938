"""The config reads both forms of a Hugging Face config.json and refuses what the model cannot compute."""

import pytest

from grm_jax.errors import UserError
from grm_jax.model.config import PRESETS, Gemma2Config, config_from_hugging_face, config_to_hugging_face

OLD = {
    "model_type": "gemma2", "vocab_size": 256000, "hidden_size": 4608, "intermediate_size": 36864, "num_hidden_layers": 46,
    "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128, "sliding_window": 4096,
    "query_pre_attn_scalar": 144, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    "rms_norm_eps": 1e-06, "max_position_embeddings": 8192, "rope_theta": 10000.0, "hidden_act": "gelu_pytorch_tanh",
}  # fmt: skip
NEW = {name: value for name, value in OLD.items() if name not in ("rope_theta", "hidden_act")} | {
    "hidden_activation": "gelu_pytorch_tanh",
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "layer_types": ["sliding_attention", "full_attention"] * 23,
    "tie_word_embeddings": True,
}


@pytest.mark.parametrize("data", [OLD, NEW], ids=["old", "new"])
def test_both_forms_give_the_preset(data):
    assert config_from_hugging_face(data) == PRESETS["27b"]


@pytest.mark.parametrize("name", PRESETS)
def test_written_config_reads_back(name):
    assert config_from_hugging_face(config_to_hugging_face(PRESETS[name])) == PRESETS[name]


def test_rope_theta_is_read_from_either_place():
    assert config_from_hugging_face(OLD | {"rope_theta": 5e5}).rope_theta == 5e5
    assert config_from_hugging_face(NEW | {"rope_parameters": {"rope_theta": 5e5}}).rope_theta == 5e5


def test_null_caps_mean_no_cap():
    config = config_from_hugging_face(OLD | {"attn_logit_softcapping": None, "final_logit_softcapping": None})
    assert (config.attention_soft_cap, config.final_soft_cap) == (None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "only 'gemma2'"),
        ({"num_hidden_layers": 45}, "even number"),
        ({"num_key_value_heads": 5}, "multiple"),
        ({"head_dim": 3}, "even number"),
        ({"hidden_size": "4608"}, "hidden_size must be a number"),
        ({"hidden_size": 0}, "positive integer"),
        ({"sliding_window": None}, "sliding_window must be a number"),
        ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
        ({"query_pre_attn_scalar": 0.5}, "query_pre_attn_scalar"),
        ({"attn_logit_softcapping": -1.0}, "attention_soft_cap"),
        ({"hidden_act": "silu"}, "activation 'silu'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"layer_types": ["full_attention"] * 46}, "alternate"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters"),
        ({"use_bidirectional_attention": True}, "causal"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_other_models_are_refused(change, message):
    with pytest.raises(UserError, match=message) as error:
        config_from_hugging_face(OLD | change, "folder/config.json")
    assert "\n" not in str(error.value)


def test_missing_fields_are_named():
    data = {name: value for name, value in OLD.items() if name not in ("head_dim", "hidden_size")}
    with pytest.raises(UserError, match="hidden_size, head_dim"):
        config_from_hugging_face(data)


def test_config_is_hashable_and_equal_by_value():
    assert len({PRESETS["2b"], Gemma2Config(**vars(PRESETS["2b"]))}) == 1


def test_the_tiny_preset_is_the_shipped_configuration():
    from pathlib import Path

    from grm_jax.cli import configure

    configure.load([str(Path(__file__).parents[2] / "configs" / "models" / "tiny.gin")], [])
    assert configure.make(Gemma2Config) == PRESETS["tiny"]
