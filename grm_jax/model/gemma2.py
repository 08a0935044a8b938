"""Gemma-2 as one Linen module: it declares parameters with logical axes and runs the pure layers over them.

    hidden, segment = Gemma2(config).apply({"params": params}, tokens, positions, segments, cache)

serves training, prefill, decoding and every scalar head: `hidden` [B, T, D] goes to the heads of `heads.py`, `segment` holds the
keys and values of the given tokens, ready to be a cache segment of a later call. Nothing is mutated.
"""

import functools
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from grm_jax.model.attention import KeyValues, Tokens
from grm_jax.model.config import Gemma2Config
from grm_jax.model.gathering import gathered
from grm_jax.model.kernels import attention_by, best_kernel
from grm_jax.model.layers import Weight, embed, gated_mlp, project, rms_norm, rotate
from grm_jax.model.projections import is_formed

PairKeyValues = dict[str, KeyValues]  # {"local": ..., "global": ...}


@struct.dataclass
class CacheSegment:
    """Keys and values of consecutive tokens in every layer, and where the tokens stand.

    Attributes:
        layers: {"local", "global"} of KeyValues [pairs, B, K, S, H]; in an unrolled model a tuple, one [B, K, S, H] dict a pair.
        tokens: positions and segment ids [B, S].
    """

    layers: Any
    tokens: Tokens


class Block(nn.Module):
    """One layer: attention and feed-forward, each between two norms. A window of None is global attention."""

    config: Gemma2Config
    window: int | None
    dtype: jnp.dtype | None
    kernel: str

    @nn.compact
    def __call__(
        self, x: jax.Array, where: Tokens, cache: Sequence[tuple[KeyValues, Tokens]]
    ) -> tuple[jax.Array, KeyValues]:
        """x [B, T, D] -> x [B, T, D] and this layer's keys and values [B, K, T, H]."""
        c = self.config
        N, K, H, D, F = c.num_heads, c.num_kv_heads, c.head_dim, c.model_dim, c.mlp_dim
        attention = self._declare(
            "attention",
            query=((D, N, H), ("embed", "heads", "head_dim"), D),
            key=((D, K, H), ("embed", "kv_heads", "head_dim"), D),
            value=((D, K, H), ("embed", "kv_heads", "head_dim"), D),
            output=((N, H, D), ("heads", "head_dim", "embed"), N * H),
        )
        mlp = self._declare(
            "mlp",
            gate=((D, F), ("embed", "mlp"), D),
            up=((D, F), ("embed", "mlp"), D),
            down=((F, D), ("mlp", "embed"), F),
        )

        def norm(name: str, y: jax.Array) -> jax.Array:
            return rms_norm(y, _vector(self, name, D), c.norm_epsilon)

        y = norm("pre_attention_norm", x)
        queries = rotate(project(y, attention["query"]), where.positions, c.rope_theta)
        keys = rotate(project(y, attention["key"]), where.positions, c.rope_theta)
        values = project(y, attention["value"])
        own = KeyValues(keys=keys.swapaxes(1, 2), values=values.swapaxes(1, 2))
        attended = attention_by(self.kernel, queries, len(cache))(
            queries, where, own, cache,
            scale=c.query_pre_attn_scalar**-0.5, cap=c.attention_soft_cap, window=self.window,
        )  # fmt: skip
        merged = attended.reshape(*x.shape[:2], N * H)
        x = x + norm("post_attention_norm", project(merged, attention["output"], summed=2))
        x = x + norm("post_mlp_norm", gated_mlp(mlp, norm("pre_mlp_norm", x)))
        return _by_rows(x), own

    def _declare(self, group: str, **leaves: tuple[tuple[int, ...], tuple[str, ...], int]) -> dict[str, Weight]:
        """Declares a dict of matrices (shape, logical axes, fan-in) as one parameter group, cast to the compute type."""

        def init(key: jax.Array) -> dict[str, Any]:
            keys = jax.random.split(key, len(leaves))
            return {
                name: nn.with_logical_partitioning(nn.initializers.normal(fan_in**-0.5), axes)(k, shape, jnp.float32)
                for k, (name, (shape, axes, fan_in)) in zip(keys, leaves.items(), strict=True)
            }

        given: dict[str, Weight] = self.variables.get("params", {}).get(group, {})
        if any(map(is_formed, given.values())):
            return given  # to serve only; Flax would compare shapes leaf by leaf, and theirs are others
        weights = {
            name: w if self.dtype is None else w.astype(self.dtype) for name, w in self.param(group, init).items()
        }
        return {name: gathered(w, leaves[name][1]) for name, w in weights.items()}


class Pair(nn.Module):
    """A local layer and a global layer: the unit that is scanned."""

    config: Gemma2Config
    dtype: jnp.dtype | None
    kernel: str

    @nn.compact
    def __call__(
        self, x: jax.Array, where: Tokens, cached: tuple[PairKeyValues, ...], cached_where: tuple[Tokens, ...]
    ) -> tuple[jax.Array, PairKeyValues]:
        """x [B, T, D] -> x and the pair's keys and values."""
        own = {}
        for name, window in (("local", self.config.window), ("global", None)):
            cache = [(pair[name], tokens) for pair, tokens in zip(cached, cached_where, strict=True)]
            x, own[name] = Block(self.config, window, self.dtype, self.kernel, name=name)(x, where, cache)
        return x, own


class Gemma2(nn.Module):
    """The model without a head.

    Attributes:
        config: the shape.
        dtype: type of the computation (bfloat16 on accelerators); None computes in the parameters' own type.
        unrolled: layers one after another with parameters from `unroll`, instead of a scan over stacked ones.
        remat: recompute each pair's activations in the backward pass.
        kernel: what attends (`kernels.KERNELS`).
    """

    config: Gemma2Config
    dtype: Any = None
    unrolled: bool = False
    remat: bool = False
    kernel: str = "xla"

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array | None = None,
        segments: jax.Array | None = None,
        cache: Sequence[CacheSegment] = (),
    ) -> tuple[jax.Array, CacheSegment]:
        """Runs tokens [B, T] int32 through all layers.

        Args:
            tokens: token ids.
            positions: [B, T] int32; default 0, 1, 2, ...
            segments: [B, T] int32; tokens see only tokens of their own id; 0 is padding. Default all 1.
            cache: earlier segments, each of batch B or of a divisor b of B (then rows i * B/b ... share its row i).

        Returns:
            hidden [B, T, D] after the final norm, and the given tokens as a cache segment.
        """
        c = self.config
        init = nn.with_logical_partitioning(nn.initializers.normal(c.model_dim**-0.5), ("vocab", "embed"))
        embedding = cast(jax.Array, self.param("embedding", init, (c.vocab_size, c.model_dim), jnp.float32))
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
        if segments is None:
            segments = jnp.ones_like(tokens)
        where = Tokens(positions=positions, segments=segments)
        cached, cached_where = tuple(s.layers for s in cache), tuple(s.tokens for s in cache)

        # Each device looks up its part of the width, and only then are rows divided: told the end alone, the compiler would
        # repeat all rows on all devices on the way; and not told of the table, the gradient of all of it.
        table = nn.with_logical_constraint(embedding, ("vocab", "embed"))
        x = embed(tokens, table, self.dtype or embedding.dtype)
        x = _by_rows(nn.with_logical_constraint(x, ("lookup", None, "embed")))
        pair = nn.remat(Pair, prevent_cse=self.unrolled) if self.remat else Pair
        if self.unrolled:
            own = []
            for i in range(c.num_pairs):
                x, kv = pair(c, self.dtype, self.kernel, name=f"layers_{i}")(
                    x, where, tuple(s[i] for s in cached), cached_where
                )
                own.append(kv)
            layers: Any = tuple(own)
        else:
            scan = nn.scan(
                pair,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(nn.broadcast, 0, nn.broadcast),
                length=c.num_pairs,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            x, layers = scan(c, self.dtype, self.kernel, name="layers")(x, where, cached, cached_where)
        final = _vector(self, "final_norm", c.model_dim)
        return rms_norm(x, final, c.norm_epsilon), CacheSegment(layers=layers, tokens=where)


def _by_rows(x: jax.Array) -> jax.Array:
    """Says, where a mesh is active, that x [B, T, D] is divided along B alone, so that no layer leaves it otherwise."""
    return cast(jax.Array, nn.with_logical_constraint(x, ("batch", None, None)))


def _vector(module: nn.Module, name: str, size: int) -> jax.Array:
    """Declares a norm's weight [D]; zero, since norms multiply by 1 + weight."""
    init = nn.with_logical_partitioning(nn.initializers.zeros, ("embed",))
    return cast(jax.Array, module.param(name, init, (size,), jnp.float32))


def forward(
    model: Gemma2,
    params: dict[str, Any],
    tokens: jax.Array,
    positions: jax.Array | None = None,
    segments: jax.Array | None = None,
    cache: Sequence[CacheSegment] = (),
) -> tuple[jax.Array, CacheSegment]:
    """`Gemma2.__call__` as a function of plain parameters; stacked ones do for an unrolled model too."""
    if model.unrolled:
        params = unroll(params)
    return cast(Any, model.apply({"params": params}, tokens, positions, segments, cache))


def init_params(config: Gemma2Config, key: jax.Array) -> dict[str, Any]:
    """Returns random float32 parameters as a plain nested dict (tree in docs/design.md)."""
    return nn.unbox(Gemma2(config).init(key, jnp.zeros((1, 1), jnp.int32))["params"])


def abstract_params(config: Gemma2Config) -> dict[str, Any]:
    """Returns the parameter tree as `ShapeDtypeStruct`s: no memory, any size."""
    return jax.eval_shape(lambda: init_params(config, jax.random.key(0)))


@functools.lru_cache(maxsize=8)
def logical_axes(config: Gemma2Config, *, unrolled: bool = False) -> dict[str, Any]:
    """Returns a `PartitionSpec` of logical axis names for every parameter."""
    model = Gemma2(config, unrolled=unrolled)
    boxed = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32)))
    return nn.get_partition_spec(boxed)["params"]


def unrolling_pays(*, training: bool = False) -> bool:
    """Whether this machine runs an unrolled model faster: on CPU and GPU a scan copies each layer's weights and cache out of the
    stack at every token, and on CPU what the backward pass needs into a stack and out of it. Elsewhere a scan compiles faster and
    costs nothing."""
    return jax.default_backend() in (("cpu",) if training else ("cpu", "gpu"))


def native(config: Gemma2Config) -> Gemma2:
    """The module as this machine samples and scores with it fastest; parameters give the type to compute in."""
    return Gemma2(config, unrolled=unrolling_pays(), kernel=best_kernel(jax.default_backend()))


def trainable(config: Gemma2Config, *, dtype: Any, remat: bool) -> Gemma2:
    """The module as this machine trains it fastest."""
    kernel = best_kernel(jax.default_backend(), training=True)
    return Gemma2(config, dtype, unrolled=unrolling_pays(training=True), remat=remat, kernel=kernel)


def unroll(params: dict[str, Any]) -> dict[str, Any]:
    """Takes the stacked layers apart for an unrolled model: `layers` [pairs, ...] becomes `layers_0`, `layers_1`, ...

    A tree that is unrolled already is returned as it is.
    """
    if "layers" not in params:
        return params
    rest = {name: value for name, value in params.items() if name != "layers"}
    pairs = jax.tree.leaves(params["layers"])[0].shape[0]
    return rest | {f"layers_{i}": jax.tree.map(lambda x, i=i: x[i], params["layers"]) for i in range(pairs)}
