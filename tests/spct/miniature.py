"""A miniature of SPCT: data that a model of two narrow layers learns in seconds, and a configuration for it.

Items ask nothing; a critique is a score block of two numbers. So the base model soon writes scores that can be read, right
ones and wrong ones about as often, and every stage has something to do.
"""

from pathlib import Path

from grm_jax.data.jsonl import write_jsonl
from grm_jax.keys import generator

SHAPE = {
    "vocab_size": 416, "model_dim": 32, "mlp_dim": 64, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16,
    "window": 16, "query_pre_attn_scalar": 16, "max_length": 96,
}  # fmt: skip


def write_miniature(folder: Path) -> Path:
    """Writes data and configuration; returns the gin file."""
    rng = generator("test", "miniature")

    def pick(*options: str) -> str:
        return options[int(rng.integers(len(options)))]

    def task() -> dict[str, object]:
        return {"prompt": pick(*"abcdef"), "responses": [pick(*"uv"), pick(*"xy")]}

    def items(name: str, count: int) -> list[dict[str, object]]:
        return [
            {"id": f"{name}{i}", **task(), "label": int(rng.integers(2)), "meta": {"held_out": i % 2 == 1}}
            for i in range(count)
        ]

    def critique() -> str:
        first, second = rng.choice([2, 4, 7, 9], 2, replace=False)
        return f"\\boxed{{{first}, {second}}}"

    write_jsonl(folder / "train.jsonl", items("t", 24))
    write_jsonl(folder / "evaluation.jsonl", items("e", 8))
    write_jsonl(folder / "critiques.jsonl", [{**task(), "critique": critique()} for _ in range(200)])
    write_jsonl(folder / "general.jsonl", [{"prompt": letter, "completion": letter} for letter in "abcdef"])
    shape = "".join(f"Gemma2Config.{name} = {value}\n" for name, value in SHAPE.items())
    gin = folder / "mini.gin"
    gin.write_text(
        f"""{shape}
ArenaTokenizer.examples = 300
Sft.rows = 8
Sft.length = 96
Sft.save_every = 2
base/SftData.sources = (("{folder}/critiques.jsonl", 1.0), ("{folder}/general.jsonl", 0.2))
base/Sft.steps = 50
base/Sft.learning_rate = 1e-2
base/Sft.warmup = 5
Rft.hinted = True
Rft.temperature = 1.0
Rft.max_new = 12
rft/Sft.steps = 3
Grpo.steps = 3
Grpo.prompts = 4
Grpo.learning_rate = 1e-3
Grpo.max_new = 12
Grpo.save_every = 1
MetaRm.steps = 3
MetaRm.prompts = 8
MetaRm.group = 4
MetaRm.learning_rate = 1e-3
Spct.items = "{folder}/train.jsonl"
Spct.evaluation = "{folder}/evaluation.jsonl"
Spct.general = "{folder}/general.jsonl"
Spct.general_weight = 0.5
Spct.meta_first = 12
Spct.meta_temperature = 1.0
Spct.ks = (1, 2, 4)
Spct.temperatures = (1.0,)
Spct.max_new = 12
""",
        encoding="utf-8",
    )
    return gin
