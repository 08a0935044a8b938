"""Laws of low-rank adaptation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.keys import generator
from grm_jax.train import lora
from grm_jax.train.loop import fit
from grm_jax.train.sft import Sft, train_sft
from grm_jax.train.step import LossTerms
from grm_jax.train.training import Training
from tests.shapes import SHAPES, random_params
from tests.train.toy import Interrupted, Source, assert_equal_trees, copied, rows_of, stored

pytestmark = pytest.mark.usefixtures("without_plots")
SHAPE = SHAPES["grouped"]
RANK, ALPHA, SEED = 3, 6.0, 7
HEAD = {"w": np.full(SHAPE.model_dim, 0.25, np.float32), "b": np.float32(0.5)}
PRODUCTS = {  # of stacked factors, axis by axis
    "query": "pdr,prnh->pdnh", "key": "pdr,prnh->pdnh", "value": "pdr,prnh->pdnh", "output": "pnhr,prd->pnhd",
    "gate": "pdr,prf->pdf", "up": "pdr,prf->pdf", "down": "pfr,prd->pfd",
}  # fmt: skip


def start():
    return random_params(SHAPE) | {"scalar_head": dict(HEAD)}


def distance(params, batch):
    """To a point away from 0, over every leaf of the model: what every weight has a gradient of, and cheap."""
    return LossTerms(
        sum(jnp.sum((leaf - batch["goal"][0]) ** 2) for leaf in jax.tree.leaves(params)), jnp.float32(1000)
    )


def goal(number):
    return {"goal": np.float32([0.3, 0.3]), "y": np.zeros(2, np.float32)}


def settings(**changes):
    given = {"steps": 4, "learning_rate": 0.05, "warmup": 0, "lora_rank": RANK, "lora_alpha": ALPHA, "seed": SEED}
    return Training(**given | {"log_every": 1, "save_every": 1} | changes)


def with_products(params, trained, alpha=ALPHA):
    """W + alpha / rank * A B in float64."""
    layers = {}
    for kind, layer in params["layers"].items():
        layers[kind] = {name: np.float64(leaf) for name, leaf in layer.items() if "norm" in name}
        for group in ("attention", "mlp"):
            factors = trained["layers"][kind][group]
            layers[kind][group] = {
                name: weight
                + alpha
                / RANK
                * np.einsum(PRODUCTS[name], np.float64(factors[name]["A"]), np.float64(factors[name]["B"]))
                for name, weight in layer[group].items()
            }
    return params | {"layers": layers}


def drawn_factors():
    trained, frozen = lora.split(start(), RANK, SEED)
    rng = generator("lora", "B")
    return jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape).astype(np.float32), trained), frozen


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_at_the_start_it_is_the_model_exactly(dtype):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), start())
    trained, frozen = lora.split(params, RANK, SEED)
    assert_equal_trees(copied(lora.merge(frozen, trained, ALPHA)), copied(params))
    factors = jax.tree.leaves(trained["layers"])
    assert {leaf.dtype for leaf in factors} == {jnp.dtype("float32")} and {RANK} <= {leaf.shape[-1] for leaf in factors}


def test_factors_are_named_by_the_seed_and_no_two_are_alike():
    one, again, other = (lora.split(start(), RANK, seed)[0]["layers"] for seed in (SEED, SEED, SEED + 1))
    assert_equal_trees(one, again)
    drawn = [leaf for tree in (one, other) for leaf in jax.tree.leaves(tree) if np.any(leaf)]
    assert len(drawn) == 2 * 2 * 7
    assert len({np.asarray(leaf).ravel()[:4].tobytes() for leaf in drawn}) == len(drawn)
    A = np.asarray(one["local"]["attention"]["output"]["A"])
    assert A.std() == pytest.approx((SHAPE.num_heads * SHAPE.head_dim) ** -0.5, rel=0.2)


def test_a_merged_weight_is_w_plus_alpha_over_rank_times_the_product():
    trained, frozen = drawn_factors()
    merged, expected = lora.merge(frozen, trained, ALPHA), with_products(random_params(SHAPE), trained)
    expected["scalar_head"] = trained["scalar_head"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), merged, expected)


def test_the_gradient_reaches_factors_and_heads_and_nothing_else():
    def loss(trained, frozen):
        return distance(lora.merge(frozen, trained, ALPHA), goal(0)).total

    trained, frozen = drawn_factors()
    of_trained, of_frozen = jax.jit(jax.grad(loss, argnums=(0, 1)))(trained, frozen)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(of_trained))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_frozen))
    assert of_trained.keys() == {"layers", "scalar_head"}


def test_a_run_trains_factors_and_heads_and_leaves_the_rest_bit_for_bit(tmp_path):
    params = start()
    result = copied(fit(params, distance, settings(ema_decay=0.5), Source(batch=goal), tmp_path))
    assert_equal_trees(params, start())
    kept = ("embedding", "final_norm")
    assert_equal_trees({name: result[name] for name in kept}, {name: params[name] for name in kept})
    for kind in ("local", "global"):
        for name, leaf in params["layers"][kind].items():
            if "norm" in name:
                np.testing.assert_array_equal(result["layers"][kind][name], leaf)
            else:
                jax.tree.map(
                    lambda a, b: np.testing.assert_array_less(0, np.abs(a - b).max()),
                    result["layers"][kind][name],
                    leaf,
                )
    assert (result["scalar_head"]["w"] != HEAD["w"]).all() and result["scalar_head"]["b"] != HEAD["b"]

    # The result is W + alpha / rank A B of the average of the factors, which is what the last checkpoint holds.
    leaves = stored(tmp_path / "checkpoints" / "4")
    assert not any(name.startswith("frozen") for name in leaves)
    like = lora.split(params, RANK, SEED)[0]
    trained = jax.tree_util.tree_map_with_path(
        lambda path, _: leaves["ema." + jax.tree_util.keystr(path, simple=True, separator=".")], like
    )
    expected = with_products(random_params(SHAPE), trained) | {"scalar_head": trained["scalar_head"]}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), result, expected)


def test_a_run_with_lora_goes_on_bit_for_bit(tmp_path):
    changes = {"ema_decay": 0.5}
    whole = copied(fit(start(), distance, settings(**changes), Source(batch=goal), tmp_path / "whole"))
    with pytest.raises(Interrupted):
        fit(start(), distance, settings(**changes), Source(batch=goal, killed=3), tmp_path / "killed")
    assert_equal_trees(
        copied(fit(start(), distance, settings(**changes), Source(batch=goal), tmp_path / "killed")), whole
    )
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")


@pytest.mark.slow
def test_supervised_fine_tuning_with_lora_lowers_the_loss(tmp_path):
    tokens = generator("lora", "sft").integers(0, SHAPE.vocab_size, (2, 13)).astype(np.int32)
    batch = {
        "tokens": tokens[:, :-1], "targets": tokens[:, 1:], "segments": np.ones((2, 12), np.int32),
        "positions": np.tile(np.arange(12, dtype=np.int32), (2, 1)), "weights": np.ones((2, 12), np.float32),
    }  # fmt: skip
    sft = Sft(steps=15, rows=2, length=12, learning_rate=2e-2, warmup=2, lora_rank=RANK, log_every=1, dtype="bfloat16")
    train_sft(SHAPE, random_params(SHAPE), Source(batch=lambda number: batch), sft, tmp_path)
    losses = [row["loss"] for row in rows_of(tmp_path)]
    assert losses[-1] < 0.8 * losses[0]
