import pytest

from grm_jax.judge.judge import Judge
from grm_jax.sampling.policy import SamplingPolicy
from tests.tiny_judge import write_judge


@pytest.fixture(scope="session")
def judge_folder(tmp_path_factory):
    return write_judge(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(scope="session")
def judge(judge_folder):
    """One judge for all tests, so that each shape is compiled once."""
    return Judge.load(judge_folder, policy=SamplingPolicy(temperature=1.0), max_new=12, rows=16)
