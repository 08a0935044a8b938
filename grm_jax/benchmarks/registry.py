"""All benchmarks by name, and how the paper's own average is taken."""

from collections.abc import Mapping

from grm_jax.benchmarks.arena import ARENA
from grm_jax.benchmarks.benchmark import Benchmark
from grm_jax.benchmarks.judgebench import JUDGEBENCH, JUDGEBENCH_CLAUDE
from grm_jax.benchmarks.ppe import PPE_CORRECTNESS, PPE_PREFERENCE
from grm_jax.benchmarks.realmistake import REALMISTAKE
from grm_jax.benchmarks.rewardbench import REWARDBENCH
from grm_jax.benchmarks.rewardbench2 import REWARDBENCH2
from grm_jax.benchmarks.rm_bench import RM_BENCH
from grm_jax.benchmarks.rmb import RMB, RMB_PAIRS

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        REWARDBENCH, REWARDBENCH2, PPE_PREFERENCE, PPE_CORRECTNESS, RMB, RMB_PAIRS, REALMISTAKE, JUDGEBENCH,
        JUDGEBENCH_CLAUDE, RM_BENCH, ARENA,
    )
}  # fmt: skip

PAPER_COLUMNS = ("rewardbench", "ppe_preference", "ppe_correctness", "rmb")


def paper_overall(overall: Mapping[str, float]) -> float:
    """Returns the "Overall" of arXiv 2504.02495: the mean of the overall scores of `PAPER_COLUMNS`, by benchmark."""
    return sum(overall[name] for name in PAPER_COLUMNS) / len(PAPER_COLUMNS)
