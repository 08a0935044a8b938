#!/usr/bin/env python
"""Measures what narrower numbers do to a judge: its next-token distribution against that in float32, on its own critiques.

usage: python scripts/numeric_kl.py ITEMS [--model tiny|DIR] [--count 200] [--seed 0]

One critique of each item is drawn in float32; each of its tokens is predicted again, given those before, in other numbers: those of
whole critiques at once, or token by token as a judge decodes them, which is where keys and values in 8 bits are read. Printed are
the divergence KL(float32 | other) of a token in nats, mean with its standard error and largest, and how often the likeliest word
is another.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from grm_jax.data.jsonl import read_jsonl_items  # noqa: E402
from grm_jax.judge.judge import Judge  # noqa: E402
from grm_jax.judge.loading import JudgeModel, load_model  # noqa: E402
from grm_jax.judge.orders import order  # noqa: E402
from grm_jax.keys import stream_key  # noqa: E402
from grm_jax.model.attention import Tokens  # noqa: E402
from grm_jax.model.gemma2 import CacheSegment, forward, native  # noqa: E402
from grm_jax.model.heads import next_token_logits  # noqa: E402
from grm_jax.sampling.decode import write  # noqa: E402
from grm_jax.sampling.prefill import empty_prompts, prefill, put  # noqa: E402
from grm_jax.sampling.sampler import Request  # noqa: E402
from grm_jax.sampling.segments import empty_segment, keys_by_column  # noqa: E402
from grm_jax.text.template import Prompt  # noqa: E402

NUMBERS: dict[str, dict[str, Any]] = {
    "float32, int8 weights": {"dtype": "float32", "weights": "int8"},
    "float32, decoded": {"dtype": "float32", "int8_cache": False},
    "float32, int8 cache": {"dtype": "float32", "int8_cache": True},
    "float32, int8 weights and cache": {"dtype": "float32", "weights": "int8", "int8_cache": True},
    "bfloat16": {"dtype": "bfloat16"},
    "bfloat16, int8 weights": {"dtype": "bfloat16", "weights": "int8"},
    "bfloat16, decoded": {"dtype": "bfloat16", "int8_cache": False},
    "bfloat16, int8 cache": {"dtype": "bfloat16", "int8_cache": True},
    "bfloat16, int8 weights and cache": {"dtype": "bfloat16", "weights": "int8", "int8_cache": True},
}
_ROWS = 16  # computed together


def critiques(model: str, items: list[Any], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(prompt, critique) token ids of every item whose prompt fits."""
    judge = Judge.load(model, dtype="float32")
    shown = [judge.prompt(item, order(seed, item.id, len(item.responses), 0)) for item in items]
    requests = [
        Request(prompt.ids, stream_key("critique", seed, item.id, 0)[None])
        for item, prompt in zip(items, shown, strict=True)
        if isinstance(prompt, Prompt)
    ]
    drawn = dict(judge.sampler.sample(requests))
    return [(request.ids, drawn[i][0].ids) for i, request in enumerate(requests)]


def distributions(
    model: str, rows: list[tuple[np.ndarray, np.ndarray]], *, int8_cache: bool | None = None, **numbers: Any
) -> list[np.ndarray]:
    """Log-probabilities float32 [t, V] of the next word at each token of every critique; decoded, unless `int8_cache` is None."""
    loaded = load_model(model, **numbers)
    if int8_cache is not None:
        return decoded(loaded, rows, int8_cache)
    module = native(loaded.config)

    @jax.jit
    def run(params: Any, tokens: jax.Array, segments: jax.Array) -> jax.Array:
        hidden, _ = forward(module, params, tokens, segments=segments)
        return jax.nn.log_softmax(next_token_logits(hidden, params["embedding"], loaded.config), axis=-1)

    size, found = max(len(prompt) + len(critique) for prompt, critique in rows), []
    for start in range(0, len(rows), _ROWS):
        batch = rows[start : start + _ROWS]
        tokens = np.zeros((_ROWS, size), np.int32)
        segments = np.zeros((_ROWS, size), np.int32)
        for row, (prompt, critique) in enumerate(batch):
            joined = np.concatenate([prompt, critique])
            tokens[row, : len(joined)], segments[row, : len(joined)] = joined, 1
        logprobs = np.asarray(run(loaded.params, jnp.asarray(tokens), jnp.asarray(segments)))
        found += [
            logprobs[row, len(prompt) - 1 : len(prompt) + len(critique) - 1]
            for row, (prompt, critique) in enumerate(batch)
        ]
    return found


def decoded(loaded: JudgeModel, rows: list[tuple[np.ndarray, np.ndarray]], int8_cache: bool) -> list[np.ndarray]:
    """`distributions`, token by token: each attends to its prompt and to the tokens before it as the cache keeps them."""
    module, params = native(loaded.config), loaded.params
    dtype = params["embedding"].dtype
    kept: dict[str, Any] = {"by_column": keys_by_column(jax.default_backend()), "int8": int8_cache}
    P, N = (max(len(row[i]) for row in rows) for i in range(2))

    @jax.jit
    def run(params: Any, prompts: jax.Array, lengths: jax.Array, critiques: jax.Array) -> jax.Array:
        computed = prefill(module, params, prompts, lengths)
        held = put(empty_prompts(module, _ROWS, P, dtype, **kept), computed, jnp.arange(_ROWS)[None])

        def step(ring: CacheSegment, at: tuple[jax.Array, jax.Array]) -> tuple[CacheSegment, jax.Array]:
            token, index = at
            position, seen = (lengths + index)[:, None], jnp.ones((_ROWS, 1), jnp.int32)
            hidden, new = forward(module, params, token[:, None], position, seen, (held.segment, ring))
            return write(ring, CacheSegment(new.layers, Tokens(position, seen)), index), hidden[:, 0]

        ring = empty_segment(module, _ROWS, N, dtype, **kept)
        _, after = jax.lax.scan(step, ring, (critiques.T[:-1], jnp.arange(N - 1, dtype=jnp.int32)))
        hidden = jnp.concatenate([held.hidden[None], after]).swapaxes(0, 1)
        return jax.nn.log_softmax(next_token_logits(hidden, params["embedding"], loaded.config), axis=-1)

    found: list[np.ndarray] = []
    for start in range(0, len(rows), _ROWS):
        batch = rows[start : start + _ROWS]
        prompts, critiques = np.zeros((_ROWS, P), np.int32), np.zeros((_ROWS, N), np.int32)
        lengths = np.ones(_ROWS, np.int32)
        for row, (prompt, critique) in enumerate(batch):
            prompts[row, : len(prompt)], critiques[row, : len(critique)] = prompt, critique
            lengths[row] = len(prompt)
        logprobs = np.asarray(run(params, jnp.asarray(prompts), jnp.asarray(lengths), jnp.asarray(critiques)))
        found += [logprobs[row, : len(critique)] for row, (_, critique) in enumerate(batch)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = critiques(args.model, read_jsonl_items(args.items)[: args.count], args.seed)
    exact = distributions(args.model, rows, dtype="float32")
    print(f"{len(rows)} critiques, {sum(len(critique) for _, critique in rows)} tokens\n")
    print("| numbers | KL of a token, mean | largest | likeliest word is another |")
    print("|---|---|---|---|")
    for name, numbers in NUMBERS.items():
        other = distributions(args.model, rows, **numbers)
        pairs = list(zip(exact, other, strict=True))
        by_critique = [np.sum(np.exp(np.float64(p)) * (np.float64(p) - q), axis=-1) for p, q in pairs]
        tokens = np.concatenate(by_critique)
        # Tokens of a critique are not independent: the spread is that of critiques.
        means = np.array([kl.sum() for kl in by_critique]) / np.mean([len(kl) for kl in by_critique])
        error = means.std(ddof=1) / len(means) ** 0.5
        moved = np.mean(np.concatenate([p.argmax(-1) != q.argmax(-1) for p, q in pairs]))
        print(f"| {name} | {tokens.mean():.2g} ± {error:.1g} | {tokens.max():.2g} | {100 * moved:.2f}% |")


if __name__ == "__main__":
    main()
