"""Attention by a kernel of jax for TPUs ("splash"): no matrix of logits is ever held, and blocks that nobody sees are not computed.

It serves whole sequences, as training and prefill have them, alone or after one cached prompt; a decoded token attends as
`attention.attend` says, which is also what this must equal. Rows of padding see padding here and nothing there: what comes of
them is never used.

Letters: R rows, B batch of the cached prompt, T query positions, S prompt positions, N query heads, K key/value heads, H head
width.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask
from jax.sharding import PartitionSpec

from grm_jax.model.attention import KeyValues, Tokens
from grm_jax.model.mesh_axes import mesh_axes, parts

_LANES = 128  # the kernel's blocks are multiples of this
_BLOCK = 512  # queries and keys that are multiplied at once, at most


def splash_attend(
    queries: jax.Array,
    where: Tokens,
    own: KeyValues,
    cache: Sequence[tuple[KeyValues, Tokens]],
    *,
    scale: float,
    cap: float | None,
    window: int | None,
    interpret: bool = False,
) -> jax.Array:
    """Attends queries [R, T, N, H] to their own tokens and to a cached prompt; as `attention.attend`, but for rows of padding.

    Where a mesh is active each device attends with its own rows and heads; an axis that does not divide stays whole.

    Args:
        queries: not yet scaled.
        where: of the queries. Ids are of consecutive tokens, as in packed rows; after a prompt there is only the prompt's.
        own: keys and values [R, K, T, H] of the same tokens.
        cache: nothing, or one prompt of batch B, padded on the right, which R / B consecutive rows each continue.
        scale: of the queries.
        cap: soft cap of the logits.
        window: a query sees so many keys, itself included.
        interpret: the kernel is run without a TPU, slowly.

    Returns:
        [R, T, N, H] in values' dtype.
    """
    cache = [(kv.dequantized(own.values.dtype), tokens) for kv, tokens in cache]
    attend = functools.partial(_attend_here, scale=scale, cap=cap, window=window, interpret=interpret)
    arguments = (queries, where.segments, own, tuple((kv, tokens.segments) for kv, tokens in cache))
    if jax.sharding.get_abstract_mesh().empty:
        return attend(*arguments)
    batch = cache[0][0].keys.shape[0] if cache else queries.shape[0]
    rows, heads = mesh_axes("batch"), mesh_axes("heads")
    all_share = batch == 1  # then each device has the prompt, and its rows
    rows = () if (queries.shape[0] if all_share else batch) % parts(rows) else rows
    heads = heads if heads == mesh_axes("kv_heads") and not own.keys.shape[1] % parts(heads) else ()
    by_heads: Any = PartitionSpec(rows, heads)
    kv = KeyValues(keys=by_heads, values=by_heads)
    by_rows = PartitionSpec(rows)
    whole: Any = PartitionSpec(None, heads)
    cached = (KeyValues(keys=whole, values=whole), PartitionSpec()) if all_share else (kv, by_rows)
    specs = (PartitionSpec(rows, None, heads), by_rows, kv, tuple(cached for _ in cache))
    return jax.shard_map(attend, in_specs=specs, out_specs=specs[0], check_vma=False)(*arguments)


def _attend_here(
    queries: jax.Array,
    segments: jax.Array,
    own: KeyValues,
    cache: Sequence[tuple[KeyValues, jax.Array]],
    *,
    scale: float,
    cap: float | None,
    window: int | None,
    interpret: bool,
) -> jax.Array:
    """`splash_attend` on one device; segments [R, T] and of the prompt [B, S]."""
    T, N = queries.shape[1:3]
    queries = _padded(jnp.swapaxes(queries * scale, 1, 2), 2)
    own, ids = _padded(own, 2), _padded(segments, 1)
    keys, key_ids, before = own, ids, 0
    if cache:
        keys, key_ids, before = _continued(own, ids, *cache[0], window=window)
    shape = (queries.shape[2], keys.keys.shape[2])
    # Within a segment id places differ as positions do, and no other is seen: a mask of places does.
    masks = splash_attention_mask
    mask: masks.Mask = masks.CausalMask(shape, before)
    if window is not None and window < shape[1]:
        mask = masks.LocalMask(shape, (window - 1, 0), before)
    block_q, block_kv = (_block(size) for size in shape)
    kernel = splash_attention_kernel.make_splash_mha_single_device(
        masks.MultiHeadMask([mask] * N),
        block_sizes=splash_attention_kernel.BlockSizes(
            block_q=block_q, block_kv=block_kv, block_q_dkv=block_q, block_kv_dkv=block_kv, block_q_dq=block_q,
            block_kv_dq=block_kv,
        ),
        attn_logits_soft_cap=cap, interpret=interpret,
    )  # fmt: skip
    attended = jax.vmap(kernel)(queries, keys.keys, keys.values, splash_attention_kernel.SegmentIds(ids, key_ids))
    return jnp.swapaxes(attended[:, :, :T], 1, 2).astype(own.values.dtype)


def _continued(
    own: KeyValues, ids: jax.Array, prompt: KeyValues, prompt_ids: jax.Array, *, window: int | None
) -> tuple[KeyValues, jax.Array, int]:
    """Keys, values and ids of each row's prompt and own tokens in one, and the place of the first own token.

    With a window that might end inside the prompt its padding goes to the front, so that places differ as positions do.
    """
    prompt, prompt_ids = _padded(prompt, 2), _padded(prompt_ids, 1)
    S, T = prompt_ids.shape[1], ids.shape[1]
    if window is not None and window < S + T:
        shift = S - jnp.sum(prompt_ids != 0, axis=1)
        prompt = jax.tree.map(lambda x: jax.vmap(functools.partial(jnp.roll, axis=1))(x, shift), prompt)
        prompt_ids = jax.vmap(jnp.roll)(prompt_ids, shift)
    group = ids.shape[0] // prompt_ids.shape[0]
    joined = jax.tree.map(lambda a, b: jnp.concatenate([jnp.repeat(a, group, axis=0), b], axis=2), prompt, own)
    return joined, jnp.concatenate([jnp.repeat(prompt_ids, group, axis=0), ids], axis=1), S


def _padded(tree: Any, axis: int) -> Any:
    """Zeros after an axis of every leaf, up to a multiple of the kernel's lanes; id 0 is padding."""

    def pad(x: jax.Array) -> jax.Array:
        return jnp.pad(x, [(0, -size % _LANES if i == axis else 0) for i, size in enumerate(x.shape)])

    return jax.tree.map(pad, tree)


def _block(size: int) -> int:
    """The largest multiple of the lanes, up to `_BLOCK`, that divides a padded length."""
    return max(block for block in range(_LANES, _BLOCK + 1, _LANES) if not size % block)
