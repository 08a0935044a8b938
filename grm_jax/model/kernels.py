"""Which code attends: the same function of the same arguments, by XLA everywhere or by a kernel where a backend has one."""

from collections.abc import Sequence

import jax

from grm_jax.model.attention import KeyValues, Tokens, attend
from grm_jax.model.splash import splash_attend

KERNELS = ("xla", "splash", "splash interpreted")


def attend_by(
    kernel: str,
    queries: jax.Array,
    where: Tokens,
    own: KeyValues,
    cache: Sequence[tuple[KeyValues, Tokens]],
    *,
    scale: float,
    cap: float | None,
    window: int | None,
) -> jax.Array:
    """`attention.attend`, by a kernel where it has the case: whole sequences, alone or after one cached prompt.

    Args:
        kernel: one of `KERNELS`: "xla"; "splash", for TPUs; or that interpreted, which any backend can do, slowly.
        queries: and the rest, as for `attend`.
        where: as well.
        own: as well.
        cache: as well.
        scale: as well.
        cap: as well.
        window: as well.

    Returns:
        [R, T, N, H]; on rows of padding not what `attend` gives, and nothing to be used.
    """
    if kernel == "xla" or queries.shape[1] == 1 or len(cache) > 1:
        return attend(queries, where, own, cache, scale=scale, cap=cap, window=window)
    interpret = kernel == "splash interpreted"
    return splash_attend(queries, where, own, cache, scale=scale, cap=cap, window=window, interpret=interpret)


def best_kernel(backend: str) -> str:
    """The kernel for a backend of jax ("cpu", "gpu", "tpu")."""
    return "splash" if backend == "tpu" else "xla"
