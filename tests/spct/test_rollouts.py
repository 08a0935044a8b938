"""Laws of rollouts: whose they are, what is learnt from them, and that they go on from a state. The judge is scripted."""

import dataclasses
import json

import numpy as np
import pytest

from grm_jax.data.records import Item, Turn
from grm_jax.judge.judge import Judge
from grm_jax.model.heads import TokenStatistics
from grm_jax.sampling.policy import SamplingPolicy
from grm_jax.spct.rollouts import Rollouts
from grm_jax.train.advantages import group_advantages
from grm_jax.train.grpo import Grpo
from tests.tiny_judge import Scripted, write_judge

ITEMS = [
    Item(f"i{i}", (Turn("user", f"Is {i} odd?"),), ("yes, it is", "no")[: 1 + (i != 4)], (i + 1) % 2 if i != 4 else 7)
    for i in range(5)
]
MAX_NEW = 40
CUT = "this goes on and on"


@pytest.fixture(scope="session")
def judge_folder(tmp_path_factory):
    return write_judge(tmp_path_factory.mktemp("models") / "random")


class Sampler(Scripted):
    """Writes scores that follow from a sample's key; one rollout in four is cut off, one in eight has no verdict."""

    def __init__(self, folder):
        super().__init__(folder, lambda request, j: self.text(request.keys[j]))
        self.alike = []

    @staticmethod
    def text(key):
        first, second = (int(number) for number in key)
        if first % 4 == 0:
            return CUT
        return "no verdict" if first % 8 == 1 else f"Principles: sums\n\\boxed{{{1 + first % 9}, {1 + second % 9}}}"

    def load(self, params):
        self.loaded = params

    def sample(self, requests, *, alike=False):
        self.alike.append(alike)
        return super().sample(requests)

    def _completion(self, text):
        whole = super()._completion(text)
        if text != CUT:
            return whole
        return dataclasses.replace(whole, ids=whole.ids[:-1], logprobs=whole.logprobs[:-1], stopped=False)


@pytest.fixture
def judge(judge_folder):
    judge = Judge.load(judge_folder, policy=SamplingPolicy(1.0), max_new=MAX_NEW)
    judge.sampler = Sampler(judge_folder)
    return judge


def settings(**changes):
    return Grpo(**{"steps": 1, "prompts": 2, "group": 4, "max_new": MAX_NEW, "seed": 3, **changes})


def parsed(judge, batch):
    """(order, text, length) of every rollout of a batch, read back from its arrays."""
    return [[judge._tokenizer.decode(ids[ids != 0].tolist()) for ids in row] for row in batch["tokens"]]


def test_a_batch_holds_prompts_rollouts_and_the_advantages_of_their_groups(judge):
    batch, metrics = Rollouts(judge, ITEMS[:4], settings()).next({"here": 1})
    assert judge.sampler.loaded == {"here": 1}  # what samples is what is trained
    assert set(batch) == {"prompt_tokens", "prompt_lengths", "tokens", "mask", "advantages", "sampler_logprobs"}
    P, G, T = batch["tokens"].shape
    assert (P, G) == (2, 4) and batch["prompt_tokens"].shape[0] == 2
    rewards = np.zeros((P, G))
    for p, request in enumerate(judge.sampler.requests):
        length = batch["prompt_lengths"][p]
        np.testing.assert_array_equal(batch["prompt_tokens"][p, :length], request.ids)
        assert not batch["prompt_tokens"][p, length:].any()
        shown = judge._tokenizer.decode(request.ids.tolist())
        item = next(item for item in ITEMS if item.conversation[0].content in shown)
        order = (0, 1) if shown.index("yes") < shown.index("Response 2") else (1, 0)
        for g in range(G):
            completion = judge.sampler._completion(Sampler.text(request.keys[g]))
            size = len(completion.ids)
            np.testing.assert_array_equal(batch["tokens"][p, g, :size], completion.ids)
            np.testing.assert_array_equal(batch["mask"][p, g], np.arange(T) < size)
            np.testing.assert_array_equal(batch["sampler_logprobs"][p, g], -0.5 * (np.arange(T) < size))
            critique = judge.read(g, order, completion, 0)
            best = critique.scores and critique.scores[item.label] > critique.scores[1 - item.label]
            rewards[p, g] = 1 if best else -1
    assert len({tuple(row) for row in rewards}) == 2 and abs(rewards.sum()) < 8
    advantages, flat = group_advantages(rewards)
    np.testing.assert_array_equal(batch["advantages"], advantages)
    assert metrics["reward"] == rewards.mean() and metrics["right"] == (rewards > 0).mean()
    assert metrics["flat_groups"] == flat.mean()
    assert metrics["length"] == batch["mask"].sum() / 8
    rates = {name: value for name, value in metrics.items() if name.startswith("outcome_")}
    assert len(rates) == 7 and sum(rates.values()) == 1 and 0 < rates["outcome_truncated"] < 1


def test_every_item_is_seen_once_an_epoch_in_an_order_that_changes(judge):
    rollouts = Rollouts(judge, ITEMS[:4], settings())
    metrics = [rollouts.next({})[1] for _ in range(8)]  # four epochs: each order comes back
    shown = [judge._tokenizer.decode(request.ids.tolist()) for request in judge.sampler.requests]
    questions = [text[text.index("Is ") : text.index("?")] for text in shown]
    assert sorted(questions[:4]) == sorted(questions[4:8]) == [f"Is {i} odd" for i in range(4)]
    for first, question in zip(shown[:4], questions[:4], strict=True):
        second = shown[4 + questions[4:8].index(question)]
        assert ("1: yes" in first) != ("1: yes" in second)  # with two responses two visits show both orders
    assert [each["epoch"] for each in metrics[:4]] == [0, 0.5, 1, 1.5]
    keys = np.concatenate([request.keys for request in judge.sampler.requests])
    assert len(np.unique(keys, axis=0)) == len(keys) == 64


def test_cut_off_rollouts_are_wrong_or_play_no_part(judge):
    wrong, metrics = Rollouts(judge, ITEMS[:4], settings(prompts=4, group=8)).next({})
    masked, _ = Rollouts(judge, ITEMS[:4], settings(prompts=4, group=8, truncated="masked")).next({})
    cut = np.array([[text.endswith(CUT) for text in row] for row in parsed(judge, wrong)])
    assert metrics["outcome_truncated"] == cut.mean() > 0
    assert wrong["mask"].any(-1).all() and (wrong["advantages"][cut] < 0).any()
    assert not masked["mask"][cut].any() and not masked["advantages"][cut].any()
    np.testing.assert_array_equal(masked["mask"][~cut], wrong["mask"][~cut])
    rewards = np.sign(wrong["advantages"])  # a group has two values, or is flat
    np.testing.assert_array_equal(masked["advantages"], group_advantages(rewards, ~cut)[0])


def test_consistency_puts_an_item_beside_its_reverse(judge):
    rollouts = Rollouts(judge, ITEMS[:4], settings(prompts=4, consistency_reward=0.5))
    _, metrics = rollouts.next({})
    shown = [judge._tokenizer.decode(request.ids.tolist()) for request in judge.sampler.requests]
    for first, second in (shown[:2], shown[2:]):
        assert first[: first.index("?")] == second[: second.index("?")]
        assert ("1: yes" in first) != ("1: yes" in second)
    assert len(set(shown)) == 4 and 0 < metrics["consistency"] < 1
    assert rollouts.next({})[1]["epoch"] == 0.5


def test_single_responses_are_rollouts_too(judge):
    batch, metrics = Rollouts(judge, ITEMS[4:], settings(prompts=1)).next({})
    assert batch["tokens"].shape[:2] == (1, 4)
    assert metrics["outcome_wrong_count"] > 0 and metrics["reward"] == -1 and metrics["flat_groups"] == 1


def test_the_bonuses_that_are_on_are_reported(judge):
    on = settings(format_reward=0.5, query_only_reward=0.25)
    _, metrics = Rollouts(judge, ITEMS[:4], on).next({})
    assert metrics["format"] == metrics["outcome_ok"] == metrics["query_only"] > 0
    expected = 2 * metrics["right"] - 1 + 0.5 * metrics["format"] + 0.25 * metrics["query_only"]
    np.testing.assert_allclose(metrics["reward"], expected)


def scorer(params, batch):
    values = np.full(batch["tokens"].shape, params, np.float32) / 3
    return TokenStatistics(logprobs=values, plain=2 * values, entropy=values)


@pytest.mark.parametrize("updates", [1, 3])
def test_rollouts_go_on_from_any_state_bit_for_bit(judge, updates):
    """Between two updates of a batch, too: there it is the batch that was sampled, not one of the parameters now."""

    def source():
        return Rollouts(
            judge,
            ITEMS,
            settings(updates=updates),
            reference=lambda batch: batch["sampler_logprobs"] / 7,
            scorer=scorer,
        )

    whole, drawn, states = source(), [], []
    for step in range(7):
        states.append(json.loads(json.dumps(whole.get_state())))
        drawn.append(whole.next(step))
    for step, (batch, metrics) in enumerate(drawn):
        assert metrics == drawn[step - step % updates][1]
        assert ("old_logprobs" in batch) == (updates > 1)
        if updates > 1:
            assert batch["old_logprobs"].max() == np.float32(step - step % updates) / 3
            assert batch["old_plain"].max() == np.float32(2) * batch["old_logprobs"].max()
    for step, state in enumerate(states):
        again = source()
        again.set_state(state)
        for number in range(step, 7):
            batch, metrics = again.next(number)
            assert metrics == drawn[number][1] and batch.keys() == drawn[number][0].keys()
            for name, array in batch.items():
                np.testing.assert_array_equal(array, drawn[number][0][name])
                assert array.dtype == drawn[number][0][name].dtype


def test_shapes_are_few(judge):
    rollouts = Rollouts(judge, ITEMS, settings())
    for _ in range(10):
        rollouts.next({})
    assert len(rollouts.shapes) <= 2
    assert all(T <= MAX_NEW for _, _, T in rollouts.shapes)
    assert all(judge.sampler.alike) and len(judge.sampler.alike) == 10  # one padded length for a whole batch
