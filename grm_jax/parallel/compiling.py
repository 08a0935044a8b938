"""Compiles a program for devices that need not be there, and says what it takes of each: memory, exchanges, time."""

import dataclasses
import re
import time
from typing import Any

from grm_jax.errors import UserError
from grm_jax.parallel.chips import GIB, Chip
from grm_jax.parallel.exchanges import exchanged

_QUICK = {"exec_time_optimization_effort": -1.0}
# In the words of one version of libtpu and of another.
_TOO_LARGE = re.compile(r"Used (\S+) of (\S+) hbm|HLO temporaries \((\S+)\) exceeds available HBM \((\S+)\)")


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What one chip needs for a program; bytes, and seconds of a roofline.

    Attributes:
        name: of the program.
        arguments: what it is given.
        outputs: what it returns, without what is put where an argument was.
        temporaries: the compiler's own, as many as are there at once.
        aliased: outputs that are put where an argument was: donated.
        beside: arrays that are there meanwhile, by name.
        exchanges: bytes received in one run, by kind of collective.
        flops: the model's, in one run.
        arithmetic: seconds that these take at the chip's peak.
        reading: seconds to read what each token needs; 0 where it is not known.
        sending: seconds of the exchanges at the speed of all links.
        compile_seconds: that the compiler took.
    """

    name: str
    arguments: int
    outputs: int
    temporaries: int
    aliased: int
    beside: dict[str, int]
    exchanges: dict[str, int]
    flops: float
    arithmetic: float
    reading: float
    sending: float
    compile_seconds: float

    @property
    def total(self) -> int:
        """Bytes a chip must have."""
        return self.arguments + self.outputs + self.temporaries + sum(self.beside.values())

    @property
    def seconds(self) -> float:
        """The roofline: what takes longest, if all else went on beside it."""
        return max(self.arithmetic, self.reading, self.sending)


def compile_program(
    name: str, lowered: Any, chip: Chip, *, flops: float, beside: dict[str, int], read: float, quick: bool = False
) -> Compiled:
    """Compiles a traced program.

    Args:
        name: for the result and for messages.
        lowered: what `jax.jit(f).lower(...)` gave.
        chip: that it is compiled for.
        flops: the model's, a chip.
        beside: bytes a chip by name, of arrays that are there meanwhile.
        read: bytes a chip reads in a run at least.
        quick: with the compiler's least effort: in a tenth of the time, and perhaps a little more memory.

    Raises:
        UserError: the compiler finds no way to make it fit.
    """
    begun = time.perf_counter()
    try:
        compiled = lowered.compile(compiler_options=_QUICK if quick else None)
    except Exception as error:
        found = _TOO_LARGE.search(str(error))
        if not found and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        used, there = [text for text in found.groups() if text] if found else ("", "")
        needed = f"needs {used} a chip, there is {there}" if found else "does not fit in the memory of a chip"
        raise UserError(f"{name}: {needed}; use a larger slice, another mesh, a smaller batch or LoRA") from error
    seconds, memory = time.perf_counter() - begun, compiled.memory_analysis()
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    given = memory.argument_size_in_bytes + outputs
    # Of a TPU the peak is what its compiler compares with what a chip has; the size of temporaries that is listed is more. The
    # peak of other backends leaves temporaries out.
    peak, listed = memory.peak_memory_in_bytes, memory.temp_size_in_bytes
    exchanges = exchanged(compiled.as_text())
    return Compiled(
        name=name, arguments=memory.argument_size_in_bytes, outputs=outputs,
        temporaries=peak - given if peak > given else listed, aliased=memory.alias_size_in_bytes, beside=beside,
        exchanges=exchanges, flops=flops, arithmetic=flops / chip.flops, reading=read / chip.bandwidth,
        sending=sum(exchanges.values()) / chip.links, compile_seconds=seconds,
    )  # fmt: skip


def check_fits(found: Compiled, chip: Chip) -> None:
    """Refuses a program that needs more than a chip has.

    Raises:
        UserError: so it is.
    """
    if found.total > chip.memory:
        needed = f"needs {found.total / GIB:.1f} GiB a chip, there are {chip.memory / GIB:.2f}"
        raise UserError(f"{found.name}: {needed}; use a larger slice, another mesh, a smaller batch or LoRA")
