"""The programs of the stages on a mesh, without weights: what a compiler needs to say whether they fit.

Letters: P prompts, G rollouts or critiques a prompt, S prompt positions, T completion positions, B rows, k samples, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from grm_jax.errors import UserError
from grm_jax.model.attention import Sharing
from grm_jax.model.config import Gemma2Config
from grm_jax.model.critique_reward import HEAD, zero_head
from grm_jax.model.gemma2 import Gemma2, abstract_params
from grm_jax.model.kernels import best_kernel
from grm_jax.parallel.layout import Layout, Layouts
from grm_jax.sampling.decode import decode, empty_rows
from grm_jax.sampling.policy import SamplingPolicy
from grm_jax.sampling.prefill import empty_prompts, prefill
from grm_jax.sampling.segments import keys_by_column, names_of_axes
from grm_jax.spct.abstract import (
    bfloat16,
    bytes_of,
    decoding_weights,
    placed,
    placed_rows,
    placed_weights,
    prompts,
    real,
    whole,
)
from grm_jax.train import lora
from grm_jax.train.grpo import Grpo, grpo_loss
from grm_jax.train.losses import sft_loss
from grm_jax.train.meta_rm import MetaRm, meta_loss
from grm_jax.train.optimizer import make_optimizer
from grm_jax.train.placement import Placement
from grm_jax.train.sft import Sft
from grm_jax.train.speed import training_flops
from grm_jax.train.step import Loss, Params, init_state, make_step
from grm_jax.train.training import Training

_SAMPLING = "weights that sample"


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes that no stage's settings have.

    Attributes:
        prompt: S, of judge, grpo and meta_rm.
        completion: T, tokens of a critique, of the same.
        prompts: P that are judged together.
        k: critiques of each.
        int8: the judge's projections are kept in 8 bits.
        int8_cache: its keys and values are.
    """

    prompt: int = 2048
    completion: int = 1024
    prompts: int = 4
    k: int = 32
    int8: bool = False
    int8_cache: bool = False


@dataclasses.dataclass(frozen=True)
class Program:
    """A function to be compiled, arguments without contents, and what else lives on the devices beside it.

    Attributes:
        name: of the program.
        function: jitted.
        arguments: without contents, and placed.
        layout: that it is traced on.
        flops: model FLOPs of one run of it, all devices together.
        beside: bytes a device by name, of arrays that are no arguments of it and yet there while it runs.
        read: bytes a device that must be read at least, for every token; 0 where arithmetic is the limit.
    """

    name: str
    function: Any
    arguments: tuple[Any, ...]
    layout: Layout
    flops: float
    beside: dict[str, int]
    read: float = 0.0

    def lower(self) -> Any:
        """Traces it for the devices of its layout."""
        with self.layout.active():
            return self.function.lower(*self.arguments)

    @property
    def given(self) -> int:
        """Bytes a device of its arguments, before the compiler pads them."""
        return bytes_of(self.arguments)


def programs(config: Gemma2Config, settings: Training | None, shape: Shape, layouts: Layouts) -> list[Program]:
    """The programs of a stage: one for each that is compiled.

    Args:
        config: the model's shape.
        settings: Sft, Grpo or MetaRm, whose step it is; None for a judge.
        shape: the other sizes.
        layouts: of meshes whose devices may be those of a topology.

    Raises:
        UserError: the batch cannot be divided among the devices.
    """
    if isinstance(settings, Sft):
        return [_sft(config, settings, layouts.train)]
    if isinstance(settings, Grpo):
        step = _grpo(config, settings, shape, layouts)
        waiting = {"training": bytes_of(step.arguments[0])} | step.beside
        del waiting[_SAMPLING]  # which are arguments of what samples
        return [step, *_judge(config, shape, layouts.decode, settings, waiting)]
    if isinstance(settings, MetaRm):
        return [_meta_rm(config, settings, shape, layouts.train)]
    return _judge(config, shape, layouts.decode)


def _sft(config: Gemma2Config, settings: Sft, layout: Layout) -> Program:
    B, T = settings.rows, settings.length
    batch = dict.fromkeys(("tokens", "targets", "positions", "segments"), whole((B, T))) | {"weights": real((B, T))}
    loss = functools.partial(sft_loss, _model(config, settings, layout))
    step = _training(config, settings, loss, batch, layout, abstract_params(config))
    return Program("sft step", *step, layout, _flops(config, B, T), {})


def _grpo(config: Gemma2Config, settings: Grpo, shape: Shape, layouts: Layouts) -> Program:
    P, G, S, T = settings.prompts, settings.group, shape.prompt, settings.max_new or shape.completion
    rollout = real((P, G, T))
    batch = {
        **prompts(P, S), "tokens": whole((P, G, T)), "mask": rollout, "advantages": real((P, G)),
        "sampler_logprobs": rollout,
    }  # fmt: skip
    beside = {_SAMPLING: bytes_of(decoding_weights(config, layouts.decode))}
    if settings.kl_coefficient:
        batch["reference_logprobs"] = rollout
        beside["reference model"] = bytes_of(placed_weights(bfloat16(abstract_params(config)), layouts.train, config))
    loss = functools.partial(
        grpo_loss, _model(config, settings, layouts.train), settings.objective, settings.temperature
    )
    step = _training(config, settings, loss, batch, layouts.train, abstract_params(config))
    flops = P * _flops(config, 1, S) + _flops(config, P * G, T, S)
    return Program("grpo step", *step, layouts.train, flops, beside)


def _meta_rm(config: Gemma2Config, settings: MetaRm, shape: Shape, layout: Layout) -> Program:
    P, G, S, T = settings.prompts, settings.group, shape.prompt, shape.completion
    batch = {
        **prompts(P, S), "tokens": whole((P, G, T)), "lengths": whole((P, G)), "labels": real((P, G)),
        "mask": real((P, G)),
    }  # fmt: skip
    loss = functools.partial(meta_loss, _model(config, settings, layout))
    params = abstract_params(config) | {HEAD: jax.eval_shape(lambda: jax.tree.map(jnp.asarray, zero_head(config)))}
    flops = P * _flops(config, 1, S) + _flops(config, P * G, T, S)
    return Program("meta_rm step", *_training(config, settings, loss, batch, layout, params), layout, flops, {})


def _judge(
    config: Gemma2Config, shape: Shape, layout: Layout, grpo: Grpo | None = None, waiting: dict[str, int] | None = None
) -> list[Program]:
    """Prefill of P prompts, and decoding of k samples of each; those of rollouts are the settings'. Twice as many prompts are
    held, as when some samples of each have ended and others are begun.

    What is `waiting` is there meanwhile, bytes by name.
    """
    P, k = (grpo.rows // grpo.group, grpo.group) if grpo else (shape.prompts, shape.k)
    P += -P % layout.parts
    S, R, N = shape.prompt, P * k, shape.completion
    model, params = (
        Gemma2(config, kernel=best_kernel(layout.backend)),
        decoding_weights(config, layout, int8=shape.int8),
    )
    rows = lambda shape, dtype: placed_rows(jax.ShapeDtypeStruct(shape, dtype), layout)  # noqa: E731
    tokens, lengths = rows((P, S), jnp.int32), rows((P,), jnp.int32)

    def made(empty: Callable[..., Any], count: int, size: int) -> Any:
        kept = {"by_column": keys_by_column(layout.backend), "int8": shape.int8_cache}
        like = jax.eval_shape(functools.partial(empty, model, count, size, jnp.dtype(jnp.bfloat16), **kept))
        return placed(like, layout.tree(names_of_axes(like), like))

    held, samples = made(empty_prompts, 2 * P, S), made(empty_rows, R, N)
    prefilled = jax.eval_shape(functools.partial(prefill, model), params, tokens, lengths)
    where = layout.tree(names_of_axes(prefilled), prefilled)
    filling = jax.jit(functools.partial(prefill, model), out_shardings=where)
    loop = functools.partial(decode, model, policy=SamplingPolicy(), stop_ids=(1, 107))
    decoding = jax.jit(loop, donate_argnames="rows")
    A = layout.parts
    sharing = Sharing(rows=rows((A, 2 * P // A, k), jnp.int32), places=rows((A, R // A), jnp.int32))
    patience = jax.ShapeDtypeStruct((), jnp.int32, sharding=layout.whole)
    token = (params, held, samples, rows((R, 2), jnp.uint32), rows((R,), jnp.bool_), sharing, patience)

    read = bytes_of(params) + bytes_of(held) / 2 + bytes_of(samples.cache) / 2
    waiting = waiting or {}
    beside = {"prompts that are held": bytes_of(held), "cache of the critiques": bytes_of(samples)} | waiting
    head = 2.0 * config.vocab_size * config.model_dim  # of a prompt's tokens the last alone is followed by a draw
    flops = _flops(config, P, S) / 3 - head * P * (S - 1)
    return [
        Program("prefill", filling, (params, tokens, lengths), layout, flops, beside),
        Program(
            "one token of every critique", decoding, token, layout, _flops(config, R, 1, S + N // 2) / 3, waiting, read
        ),
    ]


def _training(
    config: Gemma2Config, settings: Training, loss: Loss, batch: Params, layout: Layout, params: Params
) -> tuple[Any, tuple[Any, ...]]:
    """The jitted step and its arguments."""
    rows = next(iter(batch.values())).shape[0]
    if rows % (layout.parts * settings.accumulate):
        needed = f"{layout.parts} devices in {settings.accumulate} parts"
        raise UserError(f"a batch of {rows} cannot be divided among {needed}; make it a multiple")
    place, optimizer = Placement(layout, config), make_optimizer(settings)
    trained: Params = params
    frozen: Params = {}
    names, merge = place.of(params), None
    if settings.lora_rank:
        trained, frozen = jax.eval_shape(lambda tree: lora.split(tree, settings.lora_rank, 0), params)
        names, frozen = lora.names(names), bfloat16(frozen)
        merge = lambda frozen, trained: lora.merge(frozen, trained, settings.lora_alpha)  # noqa: E731
    state = jax.eval_shape(
        lambda trained, frozen: init_state(trained, optimizer, frozen=frozen, ema=settings.ema_decay > 0),
        trained,
        frozen,
    )
    places = place.state(state, optimizer, names)
    step: Any = make_step(
        loss, optimizer, accumulate=settings.accumulate, ema_decay=settings.ema_decay, merge=merge, places=places
    )
    rows_of = {name: placed_rows(leaf, layout) for name, leaf in batch.items()}

    return step, (placed(state, places), rows_of)


def _model(config: Gemma2Config, settings: Training, layout: Layout) -> Gemma2:
    """As `training_model`, for an accelerator."""
    kernel = best_kernel(layout.backend, training=True)
    return Gemma2(config, dtype=jnp.dtype(settings.dtype), remat=settings.remat, kernel=kernel)


def _flops(config: Gemma2Config, rows: int, tokens: int, before: int = 0) -> float:
    """Model FLOPs of training on rows of so many tokens after `before` others; forward alone is a third."""

    def keys(window: int) -> int:
        seen = (min(before + i + 1, window) for i in range(tokens))
        return rows * sum(seen)

    return training_flops(config, rows * tokens, keys(config.window), keys(before + tokens))
