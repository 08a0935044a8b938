"""Laws of the programs that are compiled without weights: they are those that run, at the sizes they say."""

import jax
import numpy as np
import pytest

from grm_jax.errors import UserError
from grm_jax.model.config import PRESETS, Gemma2Config
from grm_jax.model.gemma2 import abstract_params
from grm_jax.parallel.chips import CHIPS, topology
from grm_jax.parallel.compiling import check_fits, compile_program
from grm_jax.parallel.layout import make_layouts
from grm_jax.parallel.meshes import DecodeMesh, TrainMesh
from grm_jax.spct.programs import Shape, programs
from grm_jax.train.grpo import Grpo
from grm_jax.train.meta_rm import MetaRm
from grm_jax.train.sft import Sft

CONFIG = Gemma2Config(
    vocab_size=104, model_dim=32, mlp_dim=48, num_layers=2, num_heads=8, num_kv_heads=4, head_dim=6, window=7,
    query_pre_attn_scalar=7, max_length=64,
)  # fmt: skip
SHAPE = Shape(prompt=16, completion=8, prompts=4, k=4)
COMMON = {"steps": 1, "dtype": "bfloat16", "remat": True}
SETTINGS = {
    "sft": Sft(rows=8, length=24, **COMMON),
    "grpo": Grpo(prompts=8, group=2, rows=8, max_new=8, **COMMON),
    "meta_rm": MetaRm(prompts=8, group=2, **COMMON),
    "judge": None,
}
CHIP = CHIPS["v5e"]


def layouts():
    return make_layouts(TrainMesh(data=2, fsdp=2, tensor=2), DecodeMesh(data=2, tensor=4))


def compiled(step, settings=None):
    found = []
    for program in programs(CONFIG, settings or SETTINGS[step], SHAPE, layouts()):
        sizes = {"flops": program.flops / 8, "beside": program.beside, "read": program.read}
        found.append(compile_program(program.name, program.lower(), CHIP, **sizes))
    return found


def weights(bytes_each, parts):
    return bytes_each * sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(abstract_params(CONFIG))) / parts


@pytest.mark.parametrize("step", ["sft", pytest.param("meta_rm", marks=pytest.mark.slow)])
def test_a_training_step_holds_weights_and_moments_once_and_gives_them_back_in_place(step):
    (found,) = compiled(step)
    # Weights, and two moments of each, float32, divided among four; norms are divided among two alone.
    assert weights(12, 4) < found.aliased < 1.3 * weights(12, 4)
    assert found.aliased <= found.arguments < 1.5 * found.aliased
    assert found.outputs < 4096  # metrics
    assert {"all-gather", "all-reduce"} <= set(found.exchanges)
    assert found.seconds == max(found.arithmetic, found.sending) > 0 and not found.reading


@pytest.mark.slow
def test_reinforcement_learning_holds_the_reference_and_the_weights_that_sample_beside_it():
    step, prefill, token = compiled("grpo")
    assert [each.name for each in (step, prefill, token)] == ["grpo step", "prefill", "one token of every critique"]
    assert weights(2, 4) <= step.beside["reference model"] < 1.3 * weights(2, 4)
    assert weights(2, 4) <= step.beside["weights that sample"] < 1.3 * weights(2, 4)
    assert step.total == step.arguments + step.outputs + step.temporaries + sum(step.beside.values())


def test_a_judge_reads_weights_and_caches_for_every_token_and_overwrites_its_cache():
    prefill, token = compiled("judge")
    # Four of eight held prompts, eight of sixteen critiques a device, a quarter of the heads; keys, values, two layers, bfloat16.
    held, cache = (2 * 2 * rows * 1 * length * 6 * 2 for rows, length in ((4, 16), (8, 8)))
    assert set(prefill.beside) == {"prompts that are held", "cache of the critiques"}
    assert held < prefill.beside["prompts that are held"] < 1.5 * held
    assert cache < prefill.beside["cache of the critiques"] < 3 * cache
    assert cache <= token.aliased
    expected = weights(2, 4) + held / 2 + cache / 2
    assert expected <= token.reading * CHIP.bandwidth < 1.4 * expected
    assert not token.beside and token.exchanges["all-reduce"] > 0


def test_what_does_not_fit_is_refused():
    (found,) = compiled("sft")
    with pytest.raises(UserError, match=r"sft step: needs .* GiB a chip, there are 0.00; use a larger slice"):
        check_fits(found, CHIPS["v5e"].__class__(1.0, 1.0, 1.0, 1.0))
    check_fits(found, CHIP)
    with pytest.raises(UserError, match="a batch of 6 cannot be divided among 4 devices in 1 parts"):
        programs(CONFIG, Sft(steps=1, rows=6), SHAPE, layouts())


class TooLarge:
    def __init__(self, words):
        self.words = words

    def compile(self, compiler_options):
        raise RuntimeError(f"RESOURCE_EXHAUSTED: {self.words}")


@pytest.mark.parametrize(
    "words",
    [
        "XLA:TPU compile permanent error. Used 40.31G of 15.75G hbm. Exceeded",
        "Ran out of memory on HBM, the total memory required for HLO temporaries (40.31G) exceeds available HBM (15.75G).",
    ],
)
def test_a_compiler_that_finds_no_way_is_told_in_one_line(words):
    with pytest.raises(UserError, match=r"^step: needs 40.31G a chip, there is 15.75G; use a larger slice"):
        compile_program("step", TooLarge(words), CHIP, flops=1.0, beside={}, read=0.0)


@pytest.mark.slow
def test_the_27b_judge_fits_on_sixteen_small_chips():
    """Said by the TPU compiler: 4 prompts of 2,048 tokens with 32 critiques of 1,024 each."""
    pytest.importorskip("libtpu", reason="needs libtpu")
    chip, devices = topology("v5e:4x4")
    made = make_layouts(TrainMesh(), DecodeMesh(tensor=16), devices)
    for program in programs(PRESETS["27b"], None, Shape(), made):
        sizes = {"flops": program.flops / 16, "beside": program.beside, "read": program.read}
        found = compile_program(program.name, program.lower(), chip, **sizes)
        check_fits(found, chip)
        assert found.temporaries < 0.3 * chip.memory
