"""Accelerators: what they hold and how fast they are, from their makers' data sheets; and TPU slices that need not be there."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax

from grm_jax.errors import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip.

    Attributes:
        memory: bytes that programs may have.
        flops: dense bfloat16 FLOPs a second.
        bandwidth: of its memory, bytes a second.
        links: bytes a second to other chips, all links together, in one direction.
    """

    memory: float
    flops: float
    bandwidth: float
    links: float


CHIPS = {
    "v4": Chip(32 * GIB, 275e12, 1228e9, 300e9),
    "v5e": Chip(15.75 * GIB, 197e12, 819e9, 200e9),
    "v5p": Chip(95.74 * GIB, 459e12, 2765e9, 600e9),
    "v6e": Chip(31.25 * GIB, 918e12, 1640e9, 448e9),
}
"""By the name a topology begins with: speeds by Google Cloud's TPU system architecture pages, memory as the TPU compiler (libtpu
0.0.42.1) names it when it refuses a program; of v4 by those pages."""


def topology(name: str) -> tuple[Chip, Sequence[jax.Device]]:
    """The chips of a TPU slice, for a compiler that needs no TPU.

    Args:
        name: such as "v5e:4x4" or "v5p:4x4x4".

    Raises:
        UserError: libtpu is not installed, or it does not know the slice.
    """
    kind = name.partition(":")[0]
    if kind not in CHIPS:
        raise UserError(f"topology {name}: the kinds are {', '.join(CHIPS)}, as in v5e:4x4 or v5p:4x4x4")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no metadata server to be asked
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # a compiler holds no TPU that others could want
    from jax.experimental import topologies

    try:
        found: Any = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except Exception as error:  # of libtpu's loader and of libtpu itself, of many types
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = 'needs libtpu (pip install "grm-jax[tpu]") and a slice that it knows, such as v5e:4x4'
        raise UserError(f"topology {name}: {first}; {remedy}") from error
    return CHIPS[kind], list(found.devices)
