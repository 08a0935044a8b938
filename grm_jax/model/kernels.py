"""Which code attends: the same function of the same arguments, by XLA everywhere or by a kernel where a backend has one."""

import functools
from collections.abc import Callable

import jax

from grm_jax.model.attention import attend
from grm_jax.model.decode_attention import WIDTHS, attend_segment
from grm_jax.model.splash import splash_attend

KERNELS = ("xla", "splash", "splash interpreted", "triton", "triton interpreted")


def attention_by(kernel: str, queries: jax.Array, cached: int) -> Callable[..., jax.Array]:
    """What attends: `attention.attend`, or a kernel of the same arguments where it has the case.

    Args:
        kernel: one of `KERNELS`: "xla"; "splash", for TPUs; "triton", for GPUs; or one of these interpreted, which any backend can
            do, slowly.
        queries: [R, T, N, H], for their shape; splash takes whole sequences, triton single tokens.
        cached: segments of the cache; splash takes none or one prompt. On rows of padding it does not give what `attend` gives,
            and nothing to be used.
    """
    name, _, interpreted = kernel.partition(" ")
    T, width = queries.shape[1], queries.shape[3]
    if name == "triton" and T == 1 and width in WIDTHS:
        return functools.partial(attend, by_segment=functools.partial(attend_segment, interpret=bool(interpreted)))
    if name == "splash" and T > 1 and cached <= 1:
        return functools.partial(splash_attend, interpret=bool(interpreted))
    return attend


def best_kernel(backend: str, *, training: bool = False) -> str:
    """The kernel for a backend of jax ("cpu", "gpu", "tpu"); in training it must have a gradient."""
    return {"tpu": "splash", "gpu": "xla" if training else "triton"}.get(backend, "xla")
