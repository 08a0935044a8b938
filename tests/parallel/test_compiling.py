"""The TPU compiler as witness of what our own sums say."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from grm_jax.errors import UserError
from grm_jax.parallel.chips import GIB, topology
from grm_jax.parallel.compiling import check_fits, compile_program


def gradient(x, weights):
    """Of layers whose activations are kept: temporaries in proportion to the rows of x, some of them live together and some not."""

    def layer(x, weight):
        return x + jnp.tanh(x @ weight) @ weight.T, None

    def loss(x, weights):
        return jnp.sum(jnp.square(jax.lax.scan(layer, x, weights)[0].astype(jnp.float32)))

    return jax.grad(loss)(x, weights)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v5e:2x2", "v6e:2x2", "v5p:2x2x1"])
def test_a_program_fits_by_our_sum_where_the_compiler_takes_it(name):
    """A hundredth below what our sum says is there, it is taken; a hundredth above, it is refused, in the same numbers."""
    pytest.importorskip("libtpu", reason="needs libtpu")
    chip, devices = topology(name)

    def found(rows):
        shapes = ((int(rows) // 128 * 128, 2048), (8, 2048, 2048))
        like = [
            jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=SingleDeviceSharding(devices[0])) for shape in shapes
        ]
        return compile_program("step", jax.jit(gradient).lower(*like), chip, flops=1.0, beside={}, read=0.0)

    few, many = found(2**16), found(2**17)
    each = (many.total - few.total) / 2**16  # bytes a row
    fitting = 2**16 + (chip.memory - few.total) / each
    check_fits(just := found(0.99 * fitting), chip)
    assert 0.98 * chip.memory < just.total
    with pytest.raises(
        UserError, match=rf"step: needs .*G a chip, there is {chip.memory / GIB:.2f}G; use a larger slice"
    ):
        found(1.01 * fitting)
