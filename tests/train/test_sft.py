"""Supervised fine-tuning: the loss, the schedule, the batches, and a run."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grm_jax.cli import main
from grm_jax.data.critiques import ArenaCritiques
from grm_jax.data.examples import encode_example
from grm_jax.data.packing import packed_batches
from grm_jax.errors import UserError
from grm_jax.judge.judge import Judge
from grm_jax.keys import generator
from grm_jax.model.gemma2 import Gemma2
from grm_jax.text.template import encode_prompt, load_template
from grm_jax.text.tokenizer import load_tokenizer
from grm_jax.train.losses import sft_loss
from grm_jax.train.optimizer import make_optimizer
from grm_jax.train.sft import Sft, train_sft
from tests.shapes import SHAPES, random_params
from tests.tiny_judge import CONFIG, write_judge

SHAPE = SHAPES["one_kv_head"]
ROWS, LENGTH = 4, 24


@pytest.fixture(scope="module")
def batch():
    rng = generator("test", "sft batch")
    tokens = rng.integers(6, SHAPE.vocab_size, (ROWS, LENGTH + 1)).astype(np.int32)
    segments = np.repeat([[1] * 10 + [2] * 11 + [0] * 3], ROWS, axis=0).astype(np.int32)
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "positions": np.repeat([[*range(10), *range(11), 0, 0, 0]], ROWS, axis=0).astype(np.int32),
        "segments": segments,
        "weights": ((rng.random((ROWS, LENGTH)) < 0.5) & (segments > 0)).astype(np.float32),
    }


@functools.cache
def loss_and_gradient():
    """Jitted: (params, batch) -> ((sum, denominator), gradient of the sum)."""

    def pair(params, batch):
        terms = sft_loss(Gemma2(SHAPE), params, batch)
        return terms.total, terms.denominator

    return jax.jit(jax.value_and_grad(pair, has_aux=True))


def assert_equal_trees(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


class Same:
    """A source of one batch."""

    def __init__(self, batch):
        self.batch = batch

    def next(self, params):
        return self.batch, {}

    def get_state(self):
        return {}

    def set_state(self, state):
        assert state == {}


def test_the_loss_of_a_fixed_batch_falls(batch, tmp_path):
    sft = Sft(steps=20, rows=ROWS, length=LENGTH, learning_rate=1e-2, warmup=2, log_every=1)
    train_sft(SHAPE, random_params(SHAPE), Same(batch), sft, tmp_path)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 20
    assert losses[-1] < 0.5 * losses[0]
    assert losses[1] == pytest.approx(losses[0])  # the first step of a warm-up has rate 0


def test_targets_without_weight_have_no_influence(batch):
    base = loss_and_gradient()(random_params(SHAPE), batch)
    other = np.where(batch["weights"] == 0, (batch["targets"] + 1) % SHAPE.vocab_size, batch["targets"])
    assert (other != batch["targets"]).any()
    assert_equal_trees(base, loss_and_gradient()(random_params(SHAPE), {**batch, "targets": other}))
    counted = np.where(batch["weights"] == 1, (batch["targets"] + 1) % SHAPE.vocab_size, batch["targets"])
    (total, _), _ = loss_and_gradient()(random_params(SHAPE), {**batch, "targets": counted})
    assert total != base[0][0]


def test_examples_of_one_row_do_not_see_each_other(batch):
    """What is learnt of the second example does not change with the first, nor with the padding."""
    second = {**batch, "weights": batch["weights"] * (batch["segments"] == 2)}
    base = loss_and_gradient()(random_params(SHAPE), second)
    elsewhere = np.where(batch["segments"] == 2, batch["tokens"], (batch["tokens"] + 1) % SHAPE.vocab_size)
    (total, _), _ = loss_and_gradient()(random_params(SHAPE), {**second, "tokens": elsewhere})
    assert float(total) == pytest.approx(float(base[0][0]), rel=1e-5)
    inside = np.where(batch["segments"] == 2, (batch["tokens"] + 1) % SHAPE.vocab_size, batch["tokens"])
    (total, _), _ = loss_and_gradient()(random_params(SHAPE), {**second, "tokens": inside})
    assert float(total) != pytest.approx(float(base[0][0]), rel=1e-3)


def test_parts_of_a_batch_add_up_to_the_whole(batch):
    """Sums and denominators add; a mean of means would not, because the parts weigh differently."""
    params = random_params(SHAPE)
    (total, weight), gradient = loss_and_gradient()(params, batch)
    split = LENGTH // 3 * ROWS // LENGTH  # 1 of 4 rows: parts of unequal size
    mask = (np.arange(ROWS) < split)[:, None]
    parts = [loss_and_gradient()(params, {**batch, "weights": batch["weights"] * side}) for side in (mask, ~mask)]
    (a, n), (b, m) = parts[0][0], parts[1][0]
    assert float(n) + float(m) == float(weight) == batch["weights"].sum()
    assert float(a) + float(b) == pytest.approx(float(total), rel=1e-6)
    assert float(a / n + b / m) / 2 != pytest.approx(float(total / weight), rel=1e-3)
    summed = jax.tree.map(jnp.add, parts[0][1], parts[1][1])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), summed, gradient)


@pytest.mark.parametrize(("steps", "warmup"), [(50, 10), (50, 0), (5, 100), (1, 100)])
def test_the_ends_of_the_learning_rate(steps, warmup):
    """Measured by what the optimizer does to one number: Adam's step is the rate, whatever the gradient's size."""
    sft = Sft(steps=steps, learning_rate=0.5, warmup=warmup, final_fraction=0.1, weight_decay=0.0, clip=1e9)
    optimizer = make_optimizer(sft)
    params = {"w": jnp.zeros(())}
    state = optimizer.init(params)
    rates = []
    for _ in range(steps + 1):
        update, state = optimizer.update({"w": jnp.ones(())}, state, params)
        rates.append(-float(update["w"]))
    rise = min(warmup, steps - 1)
    assert rates[0] == pytest.approx(0.0 if rise else 0.5, abs=1e-6)
    assert rates[rise] == max(rates) == pytest.approx(0.5, rel=1e-5)
    assert rates[steps] == pytest.approx(0.05, rel=1e-4)
    assert rates[rise:] == sorted(rates[rise:], reverse=True)


def test_weight_decay_leaves_norms_alone():
    params = random_params(SHAPE)
    optimizer = make_optimizer(Sft(steps=10, learning_rate=0.1, warmup=0, weight_decay=0.5))
    updates, _ = optimizer.update(jax.tree.map(np.zeros_like, params), optimizer.init(params), params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        assert bool(jnp.any(update != 0)) == ("norm" not in jax.tree_util.keystr(path)), path


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"steps": 0}, "Sft.steps must be at least 1"), ({"steps": 1, "learning_rate": 0.0}, "Sft.learning_rate must be")],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Sft(**settings)


# batches of critiques


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_judge(tmp_path_factory.mktemp("models") / "start")


@pytest.fixture(scope="module")
def template():
    return load_template("tiny")


def test_only_the_critique_and_its_end_are_learnt(folder, template):
    tokenizer = load_tokenizer(folder)
    for index in range(20):
        example = ArenaCritiques()(index)
        ids, weights = encode_example(example, template, tokenizer)
        prompt = encode_prompt(template, tokenizer, example.conversation, example.responses)
        learnt = ids[weights == 1].tolist()
        assert ids[weights == 0].tolist() == prompt.ids.tolist()
        assert tokenizer.decode(learnt[:-1]) == example.critique
        assert learnt[-1] == tokenizer.control_id("<end_of_turn>")


def test_packed_rows_hold_whole_examples_apart(folder, template):
    tokenizer = load_tokenizer(folder)
    length = 700
    expected = {}
    for index in range(100):
        ids, weights = encode_example(ArenaCritiques()(index), template, tokenizer)
        expected[tuple(ids[:-1].tolist())] = (ids[1:].tolist(), weights[1:].tolist())
    batches = packed_batches(ArenaCritiques(), template, tokenizer, rows=3, length=length)
    seen, packed = 0, 0
    for batch in itertools.islice(batches, 3):
        assert {name: array.shape for name, array in batch.items()} == dict.fromkeys(batch, (3, length))
        for row in range(3):
            segments = batch["segments"][row]
            assert (batch["weights"][row][segments == 0] == 0).all()
            count = int(segments.max())
            packed += count > 1
            for segment in range(1, count + 1):
                inside = segments == segment
                assert batch["positions"][row][inside].tolist() == list(range(inside.sum()))
                targets, weights = expected[tuple(batch["tokens"][row][inside].tolist())]
                assert batch["targets"][row][inside].tolist() == targets
                assert batch["weights"][row][inside].tolist() == weights
                seen += 1
    assert packed and seen > 9


def test_an_example_longer_than_a_row_is_refused(folder, template):
    batches = packed_batches(ArenaCritiques(), template, load_tokenizer(folder), rows=2, length=20)
    with pytest.raises(UserError, match=r"training example \d+ has \d+ tokens, a row holds 20: give longer rows"):
        next(iter(batches))


# a run

SETTINGS = {"Sft.steps": 3, "Sft.rows": 2, "Sft.length": 300, "Sft.warmup": 1, "Sft.export_every": 2}


def train(output, *arguments):
    settings = [f"--gin.{name}={value}" for name, value in SETTINGS.items()]
    return main(["train", "sft", "--output", str(output), *settings, *map(str, arguments)])


def test_a_run_from_a_model_writes_a_judge_and_repeats_bit_for_bit(folder, tmp_path, capsys):
    for name in ("a", "b"):
        assert train(tmp_path / name, "--model", folder) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"saved {tmp_path / 'b' / 'model'}"
    for part in ("model", "model-2"):
        weights = [(tmp_path / name / part / "model.safetensors").read_bytes() for name in ("a", "b")]
        assert weights[0] == weights[1] != (folder / "model.safetensors").read_bytes()
    assert weights[0] != (tmp_path / "a" / "model" / "model.safetensors").read_bytes()
    judge = Judge.load(tmp_path / "a" / "model", max_new=4)
    assert (judge.config, judge.template.name) == (CONFIG, "tiny")
    rows = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3]
    assert {"loss", "gradient_norm", "weight", "seconds"} <= rows[0].keys()
    assert "Sft.steps = 3" in (tmp_path / "a" / "config.gin").read_text()


def test_a_run_from_nothing_trains_its_tokenizer(tmp_path, capsys):
    shape = "vocab_size=400 model_dim=16 mlp_dim=16 num_layers=2 num_heads=2 num_kv_heads=1 head_dim=8"
    config = [f"--gin.Gemma2Config.{setting}" for setting in shape.split()]
    output = tmp_path / "run"
    assert train(output, *config, "--gin.ArenaTokenizer.examples=100", "--dtype", "bfloat16") == 0
    judge = Judge.load(output / "model", max_new=4)
    assert judge.config.vocab_size == 400
    assert (output / "model" / "tokenizer.model").read_bytes() == (
        output / "tokenizer" / "tokenizer.model"
    ).read_bytes()
    assert train(output, *config) == 2
    assert "this run is done; give --output a new folder" in capsys.readouterr().err


def test_rows_that_are_too_short_are_one_line(folder, tmp_path, capsys):
    assert train(tmp_path / "run", "--model", folder, "--gin.Sft.length=20") == 2
    error = capsys.readouterr().err
    assert error.startswith("grm train: training example ")
    assert error.count("\n") == 1
