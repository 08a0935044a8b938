"""Generative reward models with inference-time scaling, in JAX.

judge = grm_jax.Judge.load("tiny")
judgement = judge.score(prompt, responses, k=8)
grm_jax.vote(judgement, policy="majority", k=4)
"""

from typing import TYPE_CHECKING, Any

from grm_jax.data.records import Item, Judgement, Sample
from grm_jax.errors import UserError
from grm_jax.judge.anytime import Stopping
from grm_jax.judge.voting import vote

if TYPE_CHECKING:
    from grm_jax.judge.judge import Judge

__version__ = "0.1.0"
__all__ = ["Item", "Judge", "Judgement", "Sample", "Stopping", "UserError", "__version__", "vote"]


def __getattr__(name: str) -> Any:
    """Imports `Judge`, and with it jax, only when it is asked for: reports and `grm --help` need no jax."""
    if name == "Judge":
        from grm_jax.judge.judge import Judge

        return Judge
    raise AttributeError(f"module 'grm_jax' has no attribute {name!r}")
