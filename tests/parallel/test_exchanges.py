"""What a program sends between devices, counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from grm_jax.parallel.exchanges import exchanged
from grm_jax.parallel.meshes import TrainMesh, make_mesh

MESH = make_mesh(TrainMesh(data=2, fsdp=4))
ROWS, WIDTH, ROUNDS = 8, 16, 5


def text(function, *arguments, out=None):
    placed = [jax.device_put(x, NamedSharding(MESH, PartitionSpec(*spec))) for x, spec in arguments]
    sharding = None if out is None else NamedSharding(MESH, PartitionSpec(*out))
    return jax.jit(function, out_shardings=sharding).lower(*placed).compile().as_text()


def test_an_exchange_in_a_loop_counts_as_often_as_the_loop_runs():
    """Each round multiplies over a divided axis: an all-reduce of [8, 16] float32."""

    def body(x, weights):
        product = jax.lax.with_sharding_constraint(x @ weights, NamedSharding(MESH, PartitionSpec()))
        return jax.lax.with_sharding_constraint(
            jnp.tanh(product), NamedSharding(MESH, PartitionSpec(None, "fsdp"))
        ), None

    def loop(x, weights):
        return jax.lax.scan(body, x, weights)[0]

    x = (np.ones((ROWS, WIDTH), np.float32), (None, "fsdp"))
    weights = (np.ones((ROUNDS, WIDTH, WIDTH), np.float32), (None, "fsdp", None))
    found = exchanged(text(loop, x, weights, out=(None, "fsdp")))
    assert found == {"all-reduce": 2 * 4 * ROWS * WIDTH * ROUNDS}


@pytest.mark.parametrize(("given", "wanted", "kind", "size"), [
    (("data", "fsdp"), (None, None), "all-gather", ROWS * WIDTH),
    (("fsdp", None), (None, None), "all-gather", ROWS * WIDTH),
    (("fsdp", None), (None, "fsdp"), "all-to-all", ROWS * WIDTH // 4),
])  # fmt: skip
def test_moving_an_array_costs_what_a_device_receives(given, wanted, kind, size):
    found = exchanged(text(lambda x: x + 1, (np.ones((ROWS, WIDTH), np.float32), given), out=wanted))
    assert set(found) == {kind} and size * 4 <= found[kind] <= 2 * size * 4


def test_what_stays_where_it_is_sends_nothing():
    x = (np.ones((ROWS, WIDTH), np.float32), ("data", None))
    assert exchanged(text(lambda x: x * 2, x, out=("data", None))) == {}


TPU_LOOP = """\
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%cond (p: (s32[], bf16[4,8])) -> pred[] {
  %bound = s32[]{:T(128)} constant(23)
  ROOT %lt = pred[]{:T(512)} compare(%i, %bound), direction=LT
}

%body (p: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %ar = bf16[4,8]{1,0:T(8,128)(2,1)S(1)} all-reduce(%x), channel_id=1, to_apply=%add
  %start = (f32[2,8]{1,0}, f32[16,8]{1,0}) all-gather-start(%y), dimensions={0}
  %done = f32[16,8]{1,0} all-gather-done(%start)
}

ENTRY %main (p: bf16[4,8]) -> bf16[4,8] {
  %w = (s32[], bf16[4,8]{1,0}) while(%t), condition=%cond, body=%body
  %cp = (f32[3]{0}, f32[3]{0}, u32[], u32[]) collective-permute-start(%z), channel_id=2
}
"""


def test_the_text_of_the_tpu_compiler_is_read():
    assert exchanged(TPU_LOOP) == {
        "all-gather": 23 * 16 * 8 * 4, "all-reduce": 23 * 2 * 4 * 8 * 2, "collective-permute": 12,
    }  # fmt: skip
