"""A linear model small enough to be computed by hand, batches for it, and how to stop a run."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

from grm_jax.keys import generator
from grm_jax.train.metrics import WALL_CLOCK
from grm_jax.train.step import LossTerms

ROWS, WIDTH = 4, 3


def toy_params():
    return {"w": np.array([1.0, -2.0, 0.5], np.float32), "norm": np.array([0.25], np.float32)}


def toy_loss(params, batch):
    """Weighted squared error of x w + norm; `size` is the mean |error| of flagged rows."""
    errors = batch["x"] @ params["w"] + params["norm"] - batch["y"]
    weights, flags = jnp.asarray(batch["weights"]), jnp.asarray(batch["flags"])
    size = (jnp.sum(jnp.abs(errors) * flags), jnp.sum(flags))
    return LossTerms(0.5 * jnp.sum(weights * errors**2), jnp.sum(weights), {"size": size})


def toy_batch(number):
    rng = generator("toy batch", number)
    return {
        "x": rng.standard_normal((ROWS, WIDTH)).astype(np.float32),
        "y": rng.standard_normal(ROWS).astype(np.float32),
        "weights": np.array([1.0, 3.0, 0.5, 0.0], np.float32),
        "flags": np.array([0.0, 0.0, 1.0, 1.0], np.float32),
    }


class Interrupted(BaseException):
    """Stands in for a kill: nothing in the package catches it."""


class Source:
    """Batches 1, 2, ...; those in `bad` hold a NaN, and the one that is `killed` stops the run."""

    def __init__(self, bad=(), killed=None, batch=toy_batch):
        self.bad, self.killed, self.batch, self.number = set(bad), killed, batch, 0

    def next(self, params):
        self.number += 1
        if self.number == self.killed:
            raise Interrupted
        batch = self.batch(self.number)
        if self.number in self.bad:
            batch = batch | {"y": np.full_like(batch["y"], np.nan)}
        return batch, {"batch_number": float(self.number)}

    def get_state(self):
        return {"number": self.number}

    def set_state(self, state):
        self.number = state["number"]


def assert_equal_trees(a, b):
    """Equal structure, types and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def copied(tree):
    return jax.tree.map(lambda x: np.array(x, copy=True), tree)


def rows_of(folder):
    """Rows of metrics.jsonl without what each run has of its own."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in WALL_CLOCK} for row in rows]


@functools.cache
def recorder():
    """An optimizer that changes nothing; its state is the gradient it was given."""
    zeros = functools.partial(jax.tree.map, jnp.zeros_like)
    return optax.GradientTransformation(zeros, lambda gradients, state, params: (zeros(gradients), gradients))


def stored(checkpoint):
    """{name: leaf} of a checkpoint, as numpy."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        return {
            name: np.asarray(leaf) for name, leaf in checkpointer.restore((checkpoint / "state").absolute()).items()
        }
