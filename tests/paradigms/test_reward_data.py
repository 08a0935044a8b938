"""What scalar reward models learn from: which sequences, with which signs, in which batches."""

import dataclasses

import numpy as np
import pytest

from grm_jax.data.parts import singles
from grm_jax.data.records import Item, Turn
from grm_jax.errors import UserError
from grm_jax.judge.loading import model_folder
from grm_jax.judge.run_store import RunStore, item_facts
from grm_jax.paradigms.reward_data import RewardBatches, criticised, preferences
from grm_jax.text.template import load_template
from grm_jax.text.tokenizer import load_tokenizer
from tests.tiny_meta import sample

TOKENIZER = load_tokenizer(model_folder("tiny"))
TEMPLATE = load_template("tiny")


def item(name, n, label):
    return Item(name, (Turn("user", "use pig"),), tuple(["- cat", "- dog sun", "- owl", "- pig"][:n]), label)


ITEMS = [item("two", 2, 1), item("one", 1, 5), item("three", 3, 0)]


def texts(preference):
    return [
        TOKENIZER.decode(each.prompt.tolist()) + "|" + TOKENIZER.decode(each.critiques[0].tolist())
        for each in preference.sequences
    ]


def shows(text, *responses):
    """The responses that stand in a prompt, by the order given."""
    return text.split("|")[0].count("Response") == len(responses) and all(
        f"Response {place}: {response}\n" in text for place, response in enumerate(responses, 1)
    )


def test_btrm_sees_the_best_and_each_other_response_by_itself():
    found = preferences("btrm", ITEMS, TEMPLATE, TOKENIZER)
    assert [each.signs for each in found] == [(1.0, -1.0)] * 3
    wanted = [("- dog sun", "- cat"), ("- cat", "- dog sun"), ("- cat", "- owl")]
    for each, (chosen, rejected) in zip(found, wanted, strict=True):
        first, second = texts(each)
        assert shows(first, chosen) and shows(second, rejected)
        assert first.endswith("|") and [len(s.critiques[0]) for s in each.sequences] == [1, 1]


def test_pairrm_sees_each_pair_in_both_orders():
    found = preferences("pairrm", ITEMS, TEMPLATE, TOKENIZER)
    assert [each.signs for each in found] == [(1.0,), (-1.0,)] * 3
    assert shows(texts(found[0])[0], "- dog sun", "- cat")
    assert shows(texts(found[1])[0], "- cat", "- dog sun")
    assert shows(texts(found[5])[0], "- owl", "- cat")


def store(items, critiques):
    parts = [part for each in items for part in singles(each)]
    return RunStore(
        items={part.id: item_facts(part) for part in parts},
        samples={
            part.id: {
                i: sample(i, f"{part.id} {i}", (0,), (7,) if ok else None) for i, ok in enumerate(critiques(part.id))
            }
            for part in parts
        },
    )


def test_cloud_sees_each_response_with_a_critique_of_it():
    runs = store(ITEMS, lambda name: (True, name != "two#0", True))
    found = criticised(ITEMS, runs, "run", TEMPLATE, TOKENIZER)
    # Of response two#0 the second critique cannot be read: the third takes its place, and the best's third is left over.
    assert [text.split("|")[1] for each in found[:2] for text in texts(each)] == [
        "two#1 0",
        "two#0 0",
        "two#1 1",
        "two#0 2",
    ]
    assert len(found) == 2 + 2 * 3
    first, second = texts(found[0])
    assert shows(first, "- dog sun") and shows(second, "- cat")


def test_critiques_of_other_responses_are_refused():
    runs = store(ITEMS, lambda name: (True,))
    changed = [dataclasses.replace(ITEMS[0], responses=("- cat", "- hat"))]
    with pytest.raises(UserError, match=r"run: response 'two#1' had another text when it was criticised"):
        criticised(changed, runs, "run", TEMPLATE, TOKENIZER)
    with pytest.raises(UserError, match=r"run: response 'new#0' has no critiques there"):
        criticised([item("new", 2, 0)], runs, "run", TEMPLATE, TOKENIZER)
    with pytest.raises(UserError, match=r"item 'x' has no label"):
        preferences("btrm", [item("x", 2, None)], TEMPLATE, TOKENIZER)


def test_a_batch_holds_each_preference_whole_and_begins_anew_where_it_was():
    found = preferences("btrm", [item(f"i{i}", 2 + i % 3, i % 2) for i in range(6)], TEMPLATE, TOKENIZER)
    source = RewardBatches(found, size=4, seed=3)
    batches = [source.next(None)[0] for _ in range(5)]
    for batch in batches:
        P, M, _ = batch["prompt_tokens"].shape
        assert (P, M) == (4, 2) and batch["tokens"].shape == (4, 2, 1) and batch["lengths"].tolist() == [[1, 1]] * 4
        assert batch["signs"].tolist() == [[1, -1]] * 4
        known = {tuple(tuple(s.prompt.tolist()) for s in each.sequences) for each in found}
        for p in range(P):
            shown = tuple(
                tuple(batch["prompt_tokens"][p, m, : batch["prompt_lengths"][p, m]].tolist()) for m in range(M)
            )
            assert shown in known
    again = RewardBatches(found, size=4, seed=3)
    again.set_state({"next": 2})
    for batch in batches[2:]:
        for name, value in again.next(None)[0].items():
            np.testing.assert_array_equal(value, batch[name])
    assert again.get_state() == source.get_state() == {"next": 5}
