"""Which code attends: the same function of the same arguments, by XLA everywhere or by a kernel where a backend has one."""

import functools
from collections.abc import Callable

import jax

from grm_jax.model.attention import attend
from grm_jax.model.splash import splash_attend

KERNELS = ("xla", "splash", "splash interpreted")


def attention_by(kernel: str, length: int, cached: int) -> Callable[..., jax.Array]:
    """What attends: `attention.attend`, or a kernel of the same arguments where it has the case.

    Args:
        kernel: one of `KERNELS`: "xla"; "splash", for TPUs; or that interpreted, which any backend can do, slowly.
        length: of the queries; a kernel takes whole sequences.
        cached: segments of the cache; a kernel takes none or one prompt. On rows of padding it does not give what `attend` gives,
            and nothing to be used.
    """
    if kernel == "xla" or length == 1 or cached > 1:
        return attend
    return functools.partial(splash_attend, interpret=kernel == "splash interpreted")


def best_kernel(backend: str) -> str:
    """The kernel for a backend of jax ("cpu", "gpu", "tpu")."""
    return "splash" if backend == "tpu" else "xla"
