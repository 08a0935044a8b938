"""`grm compile` on devices that are there, in the place of a TPU slice; and what it refuses."""

import json

import jax
import pytest

from grm_jax.model.config import PRESETS
from grm_jax.parallel.chips import CHIPS, Chip

PROMPT, COMPLETION, PROMPTS, K = 32, 8, 8, 2
JUDGE = (
    "--model", "tiny", "--step", "judge", "--prompt", PROMPT, "--completion", COMPLETION, "--prompts", PROMPTS, "--k", K,
)  # fmt: skip


@pytest.fixture
def slice_of(monkeypatch):
    def put(chip):
        monkeypatch.setattr("grm_jax.parallel.chips.topology", lambda name: (chip, jax.devices()))

    put(CHIPS["v5e"])
    return put


def test_what_a_judge_takes_is_told_as_a_table_and_as_json(grm, slice_of):
    code, out, error = grm("compile", *JUDGE, "--topology", "v5e:2x4", "--gin.DecodeMesh.data=8")
    assert code == 0, error
    assert "prefill on v5e:2x4" in out and "one token of every critique on v5e:2x4" in out and "of 15.75 GiB" in out
    code, out, _ = grm("compile", *JUDGE, "--topology", "v5e:2x4", "--gin.DecodeMesh.data=8", "--json")
    prefill, token = json.loads(out)
    assert code == 0 and prefill["name"] == "prefill"
    assert token["total"] == token["arguments"] + token["outputs"] + token["temporaries"]
    # Prompts are divided and nothing else: all that is exchanged is how many rows run, at first and after each token.
    assert set(token["exchanges"]) == {"all-reduce"} and token["exchanges"]["all-reduce"] <= 16
    assert token["seconds"] == max(token["arithmetic"], token["reading"], token["sending"])


def test_weights_in_8_bits_take_less(grm, slice_of):
    """A byte a projection instead of two, and four a channel; the embedding and norms stay bfloat16."""
    command = ("compile", *JUDGE, "--topology", "v5e:2x4", "--gin.DecodeMesh.data=8", "--json")
    plain, narrow = (json.loads(grm(*command, *more)[1]) for more in ((), ("--weights", "int8")))
    c = PRESETS["tiny"]
    heads, kv = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    projections = c.num_layers * c.model_dim * (2 * heads + 2 * kv + 3 * c.mlp_dim)
    channels = c.num_layers * (heads + 2 * kv + 2 * c.model_dim + 2 * c.mlp_dim)
    for before, after in zip(plain, narrow, strict=True):
        assert before["arguments"] - after["arguments"] == projections - 4 * channels
    assert narrow[1]["reading"] < plain[1]["reading"]


def test_a_cache_in_8_bits_takes_less(grm, slice_of):
    """A byte a number instead of two, and two scales of four bytes for each token and head; prompts are computed as before."""
    command = ("compile", *JUDGE, "--topology", "v5e:2x4", "--gin.DecodeMesh.data=8", "--json")
    plain, narrow = (json.loads(grm(*command, *more)[1]) for more in ((), ("--cache", "int8")))
    c = PRESETS["tiny"]
    tokens = 2 * PROMPTS // 8 * PROMPT + PROMPTS // 8 * K * COMPLETION
    saved = tokens * c.num_layers * c.num_kv_heads * 2 * (c.head_dim - 4)
    assert plain[1]["arguments"] - narrow[1]["arguments"] == saved
    assert plain[0]["arguments"] == narrow[0]["arguments"]
    assert sum(plain[0]["beside"].values()) - sum(narrow[0]["beside"].values()) == saved
    assert narrow[1]["reading"] < plain[1]["reading"]


def test_what_does_not_fit_ends_with_exit_code_2(grm, slice_of):
    slice_of(Chip(2**20, 1e12, 1e9, 1e9))
    code, out, error = grm("compile", *JUDGE, "--topology", "v5e:2x4", "--gin.DecodeMesh.data=8")
    assert code == 2 and "together" in out
    assert error.startswith("grm compile: prefill: needs 0.0 GiB a chip, there are 0.00; use a larger slice")


def test_mistakes_are_refused_in_one_line(refused):
    assert "the kinds are v4, v5e, v5p, v6e" in refused("compile", *JUDGE, "--topology", "h100:8")
    assert "Sft.steps not set" in refused("compile", "--step", "sft", "--topology", "v5e:2x2")
    assert "is of --step judge" in refused("compile", "--step", "sft", "--topology", "v5e:2x2", "--weights", "int8")
    assert "--cache int8: is of --step judge" in refused(
        "compile", "--step", "sft", "--topology", "v5e:2x2", "--cache", "int8"
    )
    assert "--k must be at least 1" in refused("compile", *JUDGE[:-1], 0, "--topology", "v5e:2x2")
