"""Rollouts: the judge that is trained writes critiques of labelled items, and each group is compared with itself.

Letters: P prompts, G rollouts a prompt, S prompt positions, T rollout positions.
"""

import base64
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from grm_jax.data.records import OUTCOMES, Item, Sample
from grm_jax.judge.judge import Judge
from grm_jax.judge.orders import order
from grm_jax.keys import generator, stream_key
from grm_jax.sampling.sampler import Completion, Request, bucket
from grm_jax.spct.rewards import rollout_rewards, template_words
from grm_jax.text.template import Prompt
from grm_jax.train.advantages import group_advantages
from grm_jax.train.grpo import Grpo, Scorer
from grm_jax.train.step import Batch, Params

Shown = tuple[Item, tuple[int, ...]]  # an item and the order of its responses


class Rollouts:
    """An endless source of batches of rollouts (`train.loop.BatchSource`), as `train.grpo` describes them.

    An epoch shows each item once, in an order keyed by (seed, epoch); at its visit number v the responses stand in the order
    of the judge's sample v, so that they change places from epoch to epoch. The G rollouts of a prompt share its order. Random
    numbers of a rollout are keyed by (seed, batch, item, order, place in the group).
    """

    def __init__(
        self,
        judge: Judge,
        items: Sequence[Item],
        settings: Grpo,
        *,
        reference: Callable[[Batch], np.ndarray] | None = None,
        scorer: Scorer | None = None,
    ):
        """Prepares a source.

        Args:
            judge: samples at the settings' temperature and length; its parameters are replaced for every batch.
            items: labelled, with prompts that fit; at least one.
            settings: of the stage.
            reference: batch -> float32 [P, G, T], log-probabilities of the reference; None for none.
            scorer: gives the log-probabilities of the policy that sampled; needed for more than one update a batch.
        """
        assert scorer or settings.updates == 1
        self._judge, self._items, self._settings = judge, items, settings
        self._reference, self._scorer = reference, scorer
        self._known = template_words(judge.template)
        self._batch = self._update = 0
        self._current: tuple[dict[str, np.ndarray], dict[str, float]] | None = None
        self._epoch, self._order = -1, np.zeros(0, np.int64)
        self.shapes: set[tuple[int, ...]] = set()
        """Shapes (P, S, T) that the trainer was given."""

    def next(self, params: Params) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Returns rollouts of the policy with these parameters, or the last ones while updates of them are left."""
        if self._current is None:
            self._current = self._roll(params)
        batch, metrics = self._current
        self._update += 1
        if self._update == self._settings.updates:
            self._batch, self._update, self._current = self._batch + 1, 0, None
        return batch, metrics

    def get_state(self) -> dict[str, Any]:
        """The number of the batch and of its update; between two updates of a batch, the batch too."""
        state: dict[str, Any] = {"batch": self._batch, "update": self._update}
        if self._current is not None:
            arrays, metrics = self._current
            state["current"] = {"arrays": {name: _pack(x) for name, x in arrays.items()}, "metrics": metrics}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a state."""
        self._batch, self._update, self._current = int(state["batch"]), int(state["update"]), None
        if "current" in state:
            current = state["current"]
            arrays = {name: _unpack(x) for name, x in current["arrays"].items()}
            self._current = arrays, dict(current["metrics"])

    def _roll(self, params: Params) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        settings = self._settings
        shown = self._shown()
        self._judge.sampler.load(params)
        prompts = [self._judge.prompt(item, places) for item, places in shown]
        completions = self._sample(shown, prompts)
        samples = [
            [self._judge.read(g, places, completion, settings.seed) for g, completion in enumerate(row)]
            for (_, places), row in zip(shown, completions, strict=True)
        ]
        rewards = rollout_rewards([item for item, _ in shown], samples, settings, self._known)
        stopped = np.array([[completion.stopped for completion in row] for row in completions])
        counted = stopped | (settings.truncated == "wrong")
        advantages, flat = group_advantages(rewards.total, counted, normalisation=settings.normalisation)
        batch = self._arrays(prompts, completions, counted) | {"advantages": advantages}
        self.shapes.add((*batch["prompt_tokens"].shape, batch["tokens"].shape[-1]))
        if self._reference:
            batch["reference_logprobs"] = self._reference(batch)
        if self._scorer and settings.updates > 1:
            statistics = self._scorer(params, batch)
            batch |= {"old_logprobs": np.asarray(statistics.logprobs), "old_plain": np.asarray(statistics.plain)}
        means = {name: float(part.mean()) for name, part in rewards.parts.items() if name != "rule"}
        metrics = {
            "reward": float(rewards.total.mean()),
            "right": float((rewards.parts["rule"] > 0).mean()),
            **means,
            "flat_groups": float(flat.mean()),
            "length": float(np.mean([sample.tokens for row in samples for sample in row])),
            **_outcome_rates(samples),
            "epoch": self._batch * self._each / len(self._items),
        }
        return batch, metrics

    @property
    def _each(self) -> int:
        """Items a batch."""
        return self._settings.prompts // (2 if self._settings.consistency_reward else 1)

    def _shown(self) -> list[Shown]:
        """The P prompts of this batch; with `consistency_reward` an item's two orders stand side by side."""
        found: list[Shown] = []
        for number in range(self._batch * self._each, (self._batch + 1) * self._each):
            epoch, place = divmod(number, len(self._items))
            if epoch != self._epoch:
                self._epoch = epoch
                self._order = generator("rollouts", self._settings.seed, epoch).permutation(len(self._items))
            item = self._items[int(self._order[place])]
            places = order(self._settings.seed, item.id, len(item.responses), epoch)
            found.append((item, places))
            if self._settings.consistency_reward:
                found.append((item, places[::-1]))
        return found

    def _sample(self, shown: Sequence[Shown], prompts: Sequence[Any]) -> list[list[Completion]]:
        seed, G = self._settings.seed, self._settings.group
        requests = []
        for (item, places), prompt in zip(shown, prompts, strict=True):
            assert isinstance(prompt, Prompt), item.id  # the length of a prompt does not depend on the order
            keys = [stream_key("rollout", seed, self._batch, item.id, str(places), g) for g in range(G)]
            requests.append(Request(prompt.ids, np.stack(keys), prompt.shared_prefix))
        completions: list[list[Completion]] = [[] for _ in requests]
        for place, found in self._judge.sampler.sample(requests, alike=True):
            completions[place] = found
        return completions

    def _arrays(
        self, prompts: Sequence[Any], completions: Sequence[Sequence[Completion]], counted: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Prompts and rollouts, padded on the right to a few lengths."""
        P, G = counted.shape
        S = bucket(max(len(prompt.ids) for prompt in prompts))
        T = min(self._judge.max_new, bucket(max(len(each.ids) for row in completions for each in row)))
        batch = {
            "prompt_tokens": np.zeros((P, S), np.int32),
            "prompt_lengths": np.array([len(prompt.ids) for prompt in prompts], np.int32),
            "tokens": np.zeros((P, G, T), np.int32),
            "mask": np.zeros((P, G, T), np.float32),
            "sampler_logprobs": np.zeros((P, G, T), np.float32),
        }
        for p, (prompt, row) in enumerate(zip(prompts, completions, strict=True)):
            batch["prompt_tokens"][p, : len(prompt.ids)] = prompt.ids
            for g, completion in enumerate(row):
                length = len(completion.ids)
                batch["tokens"][p, g, :length] = completion.ids
                batch["sampler_logprobs"][p, g, :length] = completion.logprobs
                batch["mask"][p, g, :length] = counted[p, g]
        return batch


def _outcome_rates(samples: Sequence[Sequence[Sample]]) -> dict[str, float]:
    counts = Counter(sample.outcome for row in samples for sample in row)
    return {f"outcome_{name}": counts[name] / counts.total() for name in OUTCOMES}


def _pack(array: np.ndarray) -> dict[str, Any]:
    """An array as JSON, bit for bit."""
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": data}


def _unpack(packed: dict[str, Any]) -> np.ndarray:
    data = base64.b64decode(packed["data"])
    return np.frombuffer(data, np.dtype(packed["dtype"])).reshape(packed["shape"]).copy()
