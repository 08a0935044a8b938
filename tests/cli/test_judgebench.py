"""Real text: all pairs of JudgeBench's GPT-4o split, through `grm judge`."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest

from grm_jax.cli import main
from grm_jax.data.jsonl import read_jsonl_items
from grm_jax.model.config import Gemma2Config
from grm_jax.text.tokenizer import load_tokenizer
from tests.tiny_judge import write_judge

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "judgebench" / "gpt.jsonl"
CONFIG = Gemma2Config(
    vocab_size=2000, model_dim=32, mlp_dim=64, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16, window=512,
    query_pre_attn_scalar=16, max_length=8192,
)  # fmt: skip
K = 2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.exists(), reason="shared/data/judgebench/gpt.jsonl is not beside the checkout"),
]


def judge(model, data, output, *arguments):
    given = ["judge", "--model", model, "--input", data, "--layout", "judgebench", "--output", output]
    return main([str(argument) for argument in (*given, "--k", K, "--max-new", 16, *arguments)])


def stored(run, name):
    return [json.loads(line) for line in (run / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def items():
    return read_jsonl_items(DATA, layout="judgebench")


@pytest.fixture(scope="module")
def text(items):
    return [part for item in items[::4] for part in (item.conversation[0].content, *item.responses)]


def test_every_pair_is_judged_and_nothing_is_lost(items, text, tmp_path, capsys):
    model = write_judge(tmp_path / "model", CONFIG, text)
    encode = load_tokenizer(model).encode
    assert max(len(encode("".join(item.responses))) for item in items) > 2000
    run = tmp_path / "run"
    code = judge(model, DATA, run)
    judgements = stored(run, "judgements.jsonl")
    assert [judgement["id"] for judgement in judgements] == [item.id for item in items]
    assert len(items) == 350
    outcomes = Counter[str]()
    for judgement in judgements:
        unfit = "prompt_too_long" in judgement["outcomes"]
        assert len(judgement["samples"]) == (0 if unfit else K)
        outcomes.update({"prompt_too_long": K} if unfit else judgement["outcomes"])
    assert outcomes.total() == 350 * K
    assert code == (3 if outcomes["prompt_too_long"] else 0)
    assert len(stored(run, "samples.jsonl")) == (350 * K - outcomes["prompt_too_long"] * (K - 1) // K)
    assert f"350 items, k = {K}: " in capsys.readouterr().out
    assert main(["report", str(run)]) == 0
    assert "350 items; vote sum" in capsys.readouterr().out


def test_a_judge_whose_context_is_too_short_says_so(text, tmp_path, capsys):
    model = write_judge(tmp_path / "model", dataclasses.replace(CONFIG, max_length=256), text[:60])
    assert judge(model, DATA, tmp_path / "run", "--limit", 1) == 3
    (judgement,) = stored(tmp_path / "run", "judgements.jsonl")
    assert (judgement["scores"], judgement["outcomes"]) == (None, {"prompt_too_long": 1})
    (refusal,) = stored(tmp_path / "run", "samples.jsonl")
    assert refusal["tokens"] > refusal["limit"] == 240
    assert "1 items, k = 2: 1 prompt_too_long" in capsys.readouterr().out
