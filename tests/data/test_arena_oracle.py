"""The oracle: perfect without noise; with noise, wrong at rates that a vote removes."""

import json
import re
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from grm_jax.data.arena.oracle import Noise, critique
from grm_jax.data.arena.tasks import write
from grm_jax.data.arena.world import Example, generate
from grm_jax.keys import generator


def parse(text: str, count: int) -> list[int] | None:
    """Reads the last block: `count` integers in 1..10, or None."""
    blocks = re.findall(r"\\boxed\{([^}]*)\}", text)
    if not blocks or not re.fullmatch(r"\d+(, \d+)*", blocks[-1]):
        return None
    scores = [int(score) for score in blocks[-1].split(", ")]
    return scores if len(scores) == count and all(1 <= score <= 10 for score in scores) else None


def test_without_noise_scores_are_the_qualities_in_the_order_shown() -> None:
    for index in range(400):
        example = generate("test", index, 0)
        qualities = example.item["meta"]["quality"]
        for order in permutations(range(len(qualities))):
            text = critique(example, order, generator("perfect", index), Noise.none())
            assert parse(text, len(qualities)) == [qualities[shown] for shown in order]


def test_without_noise_the_derivation_and_the_findings_are_the_truth() -> None:
    for index in range(400):
        example = generate("test", index, 0)
        order = tuple(reversed(range(len(example.responses))))
        lines = critique(example, order, generator("lines", index), Noise.none()).split("\n")
        assert lines[0].startswith("Principles: ")
        assert re.fullmatch(r"Principles: [a-z ]+ \(\d\)(; [a-z ]+ \(\d\))?", lines[0])
        steps = [line for line in lines if line.startswith("Step: ")]
        assert len(steps) == len(example.task.steps) - 1
        assert f"Answer: {write(example.answer, example.task.form)}" in lines
        for place, shown in enumerate(order):
            assert f"Response {place + 1}: {', '.join(example.faults[shown]) or 'correct'}." in lines


def test_critiques_are_short() -> None:
    words = []
    for index in range(1000):
        example = generate("train", index, 0)
        order = tuple(range(len(example.responses)))
        words.append(len(critique(example, order, generator("short", index), Noise()).split()))
    assert max(words) <= 60
    assert 18 <= np.median(words) <= 45


@pytest.mark.parametrize("rate", [0.0, 0.03, 0.5])
def test_blocks_are_malformed_at_their_rate_and_only_then(rate: float) -> None:
    broken = 0
    for index in range(3000):
        example = generate("train", index, 1)
        count = len(example.responses)
        text = critique(example, tuple(range(count)), generator("broken", index), replace(Noise(), malformed=rate))
        broken += parse(text, count) is None
    assert broken / 3000 == pytest.approx(rate, abs=3 * (rate * (1 - rate) / 3000) ** 0.5)


@pytest.mark.parametrize(
    "kind", ["spurious", "wrong_symbol", "missed", "mislabelled", "false_fault", "jitter", "malformed"]
)
def test_each_noise_alone_changes_critiques(kind: str) -> None:
    noise = replace(Noise.none(), **{kind: 0.5})
    changed = 0
    for index in range(100):
        example = generate("train", index, 2)
        order = tuple(range(len(example.responses)))
        noisy = critique(example, order, generator("alone", index), noise)
        perfect = critique(example, order, generator("alone", index), Noise.none())
        changed += noisy != perfect
        assert noisy == critique(example, order, generator("alone", index), noise)
    assert changed > 20


def test_a_spurious_critique_derives_nothing() -> None:
    always = replace(Noise.none(), spurious=1.0)
    for index in range(200):
        example = generate("train", index, 3)
        count = len(example.responses)
        text = critique(example, tuple(range(count)), generator("spurious", index), always)
        principle = re.match(r"Principles: (longer|first) is better \(5\)\n", text)
        assert principle
        assert "Answer:" not in text
        scores = parse(text, count)
        assert scores is not None
        sizes = [len(response) for response in example.item["responses"]]
        favourite = sizes.index(max(sizes)) if principle[1] == "longer" else 0
        assert scores[favourite] == max(scores)


def voted_accuracy(examples: list[Example], most: int) -> np.ndarray:
    """Returns the accuracy of the summed vote at k = 1..most, ties split; orders alternate."""
    scores = np.zeros((len(examples), most, 2))
    for row, example in enumerate(examples):
        for sample in range(most):
            order = (0, 1) if sample % 2 else (1, 0)
            found = parse(critique(example, order, generator("vote", row, sample), Noise()), 2)
            if found:
                scores[row, sample, list(order)] = found
    sums = scores.cumsum(axis=1)
    labels = np.array([example.item["label"] for example in examples])
    rows = np.arange(len(examples))
    margin = sums[rows, :, labels] - sums[rows, :, 1 - labels]
    return ((margin > 0) + 0.5 * (margin == 0)).mean(axis=0)


def test_one_sample_errs_and_the_vote_corrects_it() -> None:
    examples = [example for index in range(3400) if len((example := generate("test", index, 1)).responses) == 2][:2000]
    assert len(examples) == 2000
    accuracy = voted_accuracy(examples, 32)
    one, eight, most = accuracy[0], accuracy[7], accuracy[31]
    assert 0.70 <= one <= 0.75
    assert one + 0.1 < eight < most - 0.02
    assert most >= 0.95


def test_the_documented_example_is_what_the_code_writes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "arena.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"```(json|text)\n(.*?)\n```", page, re.DOTALL))
    example = generate("test", 7, 0)
    assert json.loads(blocks["json"]) == example.item
    assert blocks["text"] == critique(example, (1, 0), generator("page"), Noise.none())
