"""Laws of the contamination guard, held against plain Python sets of words."""

import re
from collections import Counter

import numpy as np

from grm_jax.data import overlap
from grm_jax.data.overlap import find_overlap, runs_of
from grm_jax.data.records import Item, Turn
from grm_jax.keys import generator

WORDS = [f"w{i}" for i in range(40)]


def item(name, prompt, *responses, domain="d"):
    return Item(name, (Turn("user", prompt),), responses or ("yes", "no"), 0, domain=domain)


def plain_runs(text, n):
    words = re.findall(r"[a-z0-9]+", text.lower())
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def test_shares_are_those_of_plain_sets(monkeypatch):
    """Few words, so that much is shared; and rows that are looked up in many batches."""
    monkeypatch.setattr(overlap, "_AT_ONCE", 50)
    rng, n = generator("test", "overlap"), 3

    def text(length):
        return " ".join(WORDS[int(i)] for i in rng.integers(0, len(WORDS), length))

    items = [item(f"i{i}", text(30), text(12), text(2)) for i in range(60)]
    rows = [(f"train:{i}", {"prompt": text(40), "messages": [{"content": text(25)}], "n": 3}) for i in range(400)]
    there = {}
    for where, row in rows:
        for each in (row["prompt"], row["messages"][0]["content"]):
            for run in plain_runs(each, n):
                there.setdefault(run, where)
    order = {where: i for i, (where, _) in enumerate(rows)}
    found = find_overlap(items, rows, n)
    assert 0.05 < np.mean([f.prompt for f in found]) < 0.6
    for each, result in zip(items, found, strict=True):
        prompt = plain_runs(each.conversation[0].content, n)
        responses = [run for response in each.responses for run in plain_runs(response, n)]
        assert result.prompt == np.mean([run in there for run in prompt])
        assert result.responses == np.mean([run in there for run in responses])
        shared = [there[run] for run in prompt + responses if run in there]
        counts = Counter(shared)
        assert result.row == (min(shared, key=lambda row: (-counts[row], order[row])) if shared else None)


def test_case_punctuation_and_line_breaks_hide_nothing():
    question = "What is the capital of France? Answer in one word, please."
    row = {"turns": [["human", "...what IS\nthe capital of france -- answer, in one word: PLEASE!"]]}
    (found,) = find_overlap([item("a", question)], [("train:7", row)], 5)
    assert (found.prompt, found.responses, found.row) == (1.0, None, "train:7")
    (other,) = find_overlap([item("a", question)], [("train:7", {"text": question.replace("capital", "city")})], 5)
    assert 0 < other.prompt < 1  # the runs after the word


def test_strings_of_a_row_are_not_joined():
    row = {"a": "one two three", "b": "four five six"}
    (found,) = find_overlap([item("a", "two three four five")], [("r", row)], 4)
    assert (found.prompt, found.row, found.most) == (0.0, None, 0.0)


def test_order_counts_and_short_texts_have_no_runs():
    assert runs_of("a b c", 4).size == 0 and runs_of("", 1).size == 0
    assert len({*runs_of("a b c a c b", 3).tolist()}) == 4
    assert runs_of("x a b c", 3)[1] == runs_of("a b c y", 3)[0]
    assert find_overlap([], [("r", "a b c")], 3) == []
