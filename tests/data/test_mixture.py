"""Laws of mixtures: proportions in every window, whole epochs, one order for a seed."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest

from grm_jax.cli import configure
from grm_jax.data.examples import CritiqueExample, InstructionExample
from grm_jax.data.jsonl import write_jsonl
from grm_jax.data.mixture import SftData, mix, sft_examples
from grm_jax.data.packing import PackedBatches
from grm_jax.errors import UserError

WEIGHTS = {"a": 1.0, "b": 0.5, "c": 0.2}
SIZES = {"a": 3000, "b": 800, "c": 1500}


def mixture(seed=0, weights=WEIGHTS):
    return mix([(name, [(name, i) for i in range(SIZES[name])], weights[name]) for name in weights], seed)


@pytest.fixture(scope="module")
def drawn():
    example = mixture()
    return [example(i) for i in range(6000)]


@pytest.mark.parametrize("window", [17, 100, 1700])
def test_every_window_has_the_proportions_of_the_weights(drawn, window):
    total = sum(WEIGHTS.values())
    for name, weight in WEIGHTS.items():
        hits = np.cumsum([0, *(source == name for source, _ in drawn)])
        counts = hits[window:] - hits[:-window]
        assert abs(counts - window * weight / total).max() <= len(WEIGHTS) + window / 100


def test_a_source_is_shown_whole_in_every_epoch_and_shuffled_anew(drawn):
    for name in ("a", "b"):
        rows = [row for source, row in drawn if source == name]
        size = SIZES[name]
        epochs = [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
        assert epochs[0] != list(range(size))
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
    assert len(epochs) > 1


def test_the_seed_and_nothing_else_names_the_order(drawn):
    again, other = mixture(), mixture(seed=1)
    indices = np.random.default_rng(0).permutation(500)
    assert [again(int(i)) for i in indices] == [drawn[i] for i in indices]
    assert [other(i) for i in range(500)] != drawn[:500]
    alone = mixture(weights={"b": 1.0})
    assert [alone(i)[1] for i in range(300)] == [row for source, row in drawn if source == "b"][:300]
    twice = mix([("a", range(1000), 1.0), ("a", range(1000), 1.0)], 0)
    first, second = zip(*[(twice(i), twice(i + 1)) for i in range(0, 100, 2)], strict=True)
    assert first != second  # one set named twice is not shown in step


def instructions(count):
    return [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(count)]


def test_files_and_the_arena_become_one_stream_that_can_be_taken_up_again(tmp_path):
    write_jsonl(tmp_path / "i.jsonl", instructions(300))
    data = SftData(sources=((str(tmp_path / "i.jsonl"), 0.5), ("arena", 1.0)), seed=3)
    critiques = {}

    def arena(index):
        return critiques.setdefault(index, CritiqueExample((("user", f"task {index}"),), ("x",), "fine"))

    examples = sft_examples(data, {"arena": arena})
    kinds = Counter(type(examples(i)) for i in range(300))
    assert kinds == {InstructionExample: 100, CritiqueExample: 200}
    assert sorted(critiques) == list(range(200))  # a stream keeps its own order

    def encode(index):
        ids = np.frombuffer(repr(examples(index)).encode(), np.uint8).astype(np.int32)
        return ids[-60:], np.ones(len(ids[-60:]), np.float32)

    def open_again(threads=1):
        return PackedBatches(encode, rows=2, length=130, count=2**40, skip_long=False, threads=threads)

    batches = list(itertools.islice(open_again(), 20))
    stream = open_again()
    for _ in range(7):
        next(stream)
    other = open_again(threads=4)
    other.set_state(json.loads(json.dumps(stream.get_state())))
    for expected in batches[7:]:
        np.testing.assert_array_equal(next(other)["tokens"], expected["tokens"])


def test_a_row_that_is_no_example_is_refused_with_its_place(tmp_path):
    write_jsonl(tmp_path / "i.jsonl", [*instructions(3), {"prompt": "p", "answer": "a"}])
    examples = sft_examples(SftData(sources=((str(tmp_path / "i.jsonl"), 1.0),)), {})
    with pytest.raises(UserError, match=r"i\.jsonl:4: 'answer': unknown field"):
        [examples(i) for i in range(4)]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ((), "SftData.sources is empty"),
        (("arena", 1.0), r"SftData.sources holds 'arena'; write each as \(\"spec\", weight\)"),
        ((("arena", 0.0),), "the weight of arena is 0.0; give a positive number"),
        ((("arena", True),), "the weight of arena is True; give a positive number"),
    ],
)
def test_impossible_mixtures_are_refused(sources, message):
    with pytest.raises(UserError, match=message):
        SftData(sources=sources)


def test_a_mixture_is_written_in_gin():
    configure.load([], ['SftData.sources = (("arena", 1.0), ("hf:a/b:train", 0.5))', "SftData.seed = 4"])
    assert configure.make(SftData) == SftData((("arena", 1.0), ("hf:a/b:train", 0.5)), 4)
    with pytest.raises(UserError, match=r"--gin.SftData.sources = \(\): SftData.sources is empty"):
        configure.load([], ["SftData.sources = ()"])
        configure.make(SftData)
