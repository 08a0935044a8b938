"""Small models compiled for TPU slices that are not there: the programs of every stage, the attention kernel in them."""

import pytest

from grm_jax.model.config import Gemma2Config
from grm_jax.parallel.chips import topology
from grm_jax.parallel.compiling import check_fits, compile_program
from grm_jax.parallel.layout import make_layouts
from grm_jax.parallel.meshes import DecodeMesh, TrainMesh
from grm_jax.spct.programs import Shape, programs
from grm_jax.train.grpo import Grpo
from grm_jax.train.meta_rm import MetaRm
from grm_jax.train.sft import Sft

pytest.importorskip("libtpu", reason="needs libtpu, the TPU compiler")
pytestmark = pytest.mark.slow

CONFIG = Gemma2Config(
    vocab_size=1024, model_dim=256, mlp_dim=512, num_layers=2, num_heads=8, num_kv_heads=4, head_dim=128, window=100
)
SHAPE = Shape(prompt=160, completion=130, prompts=4, k=4)  # longer than the window; no multiples of the kernel's lanes
COMMON = {"steps": 1, "dtype": "bfloat16", "remat": True}
SETTINGS = {
    "judge": None,
    "sft": Sft(rows=4, length=200, **COMMON),
    "lora": Sft(rows=4, length=200, lora_rank=4, **COMMON),
    "grpo": Grpo(prompts=4, group=2, rows=8, max_new=130, **COMMON),
    "meta_rm": MetaRm(prompts=4, group=2, **COMMON),
}


@pytest.mark.parametrize("name", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
@pytest.mark.parametrize("job", SETTINGS)
def test_every_program_compiles_for_every_kind_of_chip(job, name):
    chip, devices = topology(name)
    layouts = make_layouts(TrainMesh(fsdp=2, tensor=2), DecodeMesh(data=2, tensor=2), devices)
    for program in programs(CONFIG, SETTINGS[job], SHAPE, layouts):
        lowered = program.lower()
        decodes = program.name.startswith("one token")
        assert ("tpu_custom_call" in lowered.as_text()) != decodes  # the kernel; a token has no use for it
        found = compile_program(
            program.name, lowered, chip, flops=program.flops / 4, beside=program.beside, read=program.read, quick=True
        )
        check_fits(found, chip)
        assert program.given <= 1.1 * found.arguments
        assert found.exchanges
