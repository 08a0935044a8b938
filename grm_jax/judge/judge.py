"""The judge: prompts, sampler, parser and vote tied together."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grm_jax.data.records import Item, Judgement, Sample, item_from_json
from grm_jax.errors import UserError
from grm_jax.judge.anytime import Stopping, check_stopping, progress, vote_in_time
from grm_jax.judge.loading import JudgeModel, load_model
from grm_jax.judge.orders import order, unshuffle
from grm_jax.judge.rounds import in_rounds
from grm_jax.judge.text_logprob import text_logprob
from grm_jax.judge.voting import unvoted
from grm_jax.judge.voting import vote as revote
from grm_jax.keys import stream_key
from grm_jax.model.quantization import numeric_type
from grm_jax.sampling.policy import SamplingPolicy
from grm_jax.sampling.sampler import Completion, Request, Sampler
from grm_jax.text.parser import parse_critique
from grm_jax.text.template import Hint, Prompt, PromptTooLong, encode_prompt

DEFAULT_MAX_NEW = 1024


class Judge:
    """Scores responses by sampled critiques. Load one with `Judge.load`.

    Attributes:
        name: of the model, as judgements name it.
        config: the model's shape.
        template: the prompt's wording.
        policy: how critiques are sampled.
        max_new: tokens a critique, at most.
        prompt_limit: tokens a prompt may have: the context less `max_new`.
        sampler: draws the critiques.
    """

    def __init__(
        self,
        model: JudgeModel,
        *,
        policy: SamplingPolicy | None = None,
        max_new: int | None = None,
        rows: int = 64,
        cache: str | None = None,
    ):
        """Prepares a judge.

        Args:
            model: what it is made of.
            policy: how critiques are sampled; default: `SamplingPolicy()`.
            max_new: tokens a critique; default: 1024, or half the context.
            rows: critiques that are decoded together, at most.
            cache: "int8" keeps keys and values in 8 bits; default: in the type of the computation.

        Raises:
            UserError: `max_new` that leaves no room for a prompt, or unknown `cache`.
        """
        if cache not in (None, "int8"):
            raise UserError(
                f"cache {cache!r}: not known; give int8, or nothing to keep it in the type of the computation"
            )
        config = model.config
        self.name, self.config, self.template = model.name, config, model.template
        self.policy = policy or SamplingPolicy()
        self.max_new = min(DEFAULT_MAX_NEW, config.max_length // 2) if max_new is None else max_new
        if not 0 < self.max_new < config.max_length:
            limit = config.max_length
            raise UserError(
                f"max_new is {max_new}; it must be positive and below the model's context of {limit} tokens"
            )
        self.prompt_limit = config.max_length - self.max_new
        self._tokenizer = model.tokenizer
        self._dtype = numeric_type(model.params, int8_cache=cache == "int8")
        self.sampler = Sampler(
            config,
            model.params,
            policy=self.policy,
            max_new=self.max_new,
            stop_ids=model.tokenizer.stop_ids,
            rows=rows,
            int8_cache=cache == "int8",
        )

    @classmethod
    def load(
        cls,
        model: str | Path = "tiny",
        *,
        template: str | Path | None = None,
        dtype: str | None = None,
        weights: str | None = None,
        policy: SamplingPolicy | None = None,
        max_new: int | None = None,
        rows: int = 64,
        cache: str | None = None,
    ) -> "Judge":
        """Loads "tiny" or a model folder; see `loading.load_model` for the arguments of loading and what is raised."""
        loaded = load_model(model, template=template, dtype=dtype, weights=weights)
        return cls(loaded, policy=policy, max_new=max_new, rows=rows, cache=cache)

    def score(
        self,
        prompt: str | Sequence[tuple[str, str]],
        responses: Sequence[str],
        k: int = 8,
        *,
        seed: int = 0,
        **fields: Any,
    ) -> Judgement:
        """Judges one set of responses.

        Args:
            prompt: the user's message, or the whole conversation as (role, content) pairs.
            responses: the candidates, at least one.
            k: critiques to sample.
            seed: of orders and samples.
            **fields: further fields of an item: id, reference, principles.

        Returns:
            The judgement; `scores` is the sum over the critiques that could be read, one a response.

        Raises:
            UserError: a field that an item cannot have, or k below 1.
        """
        turns = [("user", prompt)] if isinstance(prompt, str) else prompt
        conversation = [{"role": role, "content": content} for role, content in turns]
        obj = {"id": "item", "conversation": conversation, "responses": responses, **fields}
        return self.score_batch([item_from_json(obj, "score")], k, seed=seed)[0]

    def score_batch(
        self,
        items: Sequence[Item],
        k: int = 8,
        *,
        seed: int = 0,
        vote: str = "sum",
        stop: Stopping | None = None,
    ) -> list[Judgement]:
        """Judges many items; the same item gets the same critiques alone and in any batch.

        With a rule to stop by, an item gets k critiques at most, and no more than its verdict needs.

        Raises:
            UserError: k below 1, an unknown vote or one that cannot stop early, or an item that the template cannot show.
        """
        if k < 1:
            raise UserError(f"k is {k}; sample at least one critique an item")
        check_stopping(stop, vote)  # before time is spent
        start = time.perf_counter()
        samples: list[dict[int, Sample]] = [{} for _ in items]
        for _ in in_rounds(self, items, samples, seed, lambda there: progress(there, k, vote, stop).missing):
            pass  # each is in `samples` now
        about: Any = {"model": self.name, "template": self._template_name, "seed": seed}
        about["seconds"] = (time.perf_counter() - start) / max(len(items), 1)
        judged = [unvoted(item.id, [*found.values()], **about) for item, found in zip(items, samples, strict=True)]
        return [vote_in_time(each, k, vote, stop) if stop else revote(each, policy=vote) for each in judged]

    def sample(
        self, wanted: Sequence[tuple[Item, Sequence[int]]], seed: int, *, hint: bool = False
    ) -> Iterator[tuple[int, list[Sample] | PromptTooLong]]:
        """Samples critiques; the stream of results is what a store keeps.

        Args:
            wanted: items, each with the indices of the samples to draw.
            seed: of orders and samples.
            hint: tell the judge each item's label (and strength); such samples are for training, never for a verdict.

        Yields:
            (place in `wanted`, some of its samples), or (place, PromptTooLong) once for an item that does not fit.

        Raises:
            UserError: an item that the template cannot show, or one without a label to hint at; nothing is sampled then.
        """
        stream = "hinted critique" if hint else "critique"
        requests: list[Request] = []
        owners: list[tuple[int, tuple[int, ...], list[int]]] = []
        for i, (item, indices) in enumerate(wanted):
            by_order: dict[tuple[int, ...], list[int]] = {}
            for index in indices:
                by_order.setdefault(order(seed, item.id, len(item.responses), index), []).append(index)
            # Orders of one item may differ by a token or two: the item fits when all of them do.
            prompts = {shown: self.prompt(item, shown, hint) for shown in by_order}
            refused = [prompt for prompt in prompts.values() if isinstance(prompt, PromptTooLong)]
            if refused:
                yield i, max(refused, key=lambda prompt: prompt.tokens)
                continue
            for shown, prompt in prompts.items():
                assert isinstance(prompt, Prompt)
                keys = np.stack([stream_key(stream, seed, item.id, index) for index in by_order[shown]])
                requests.append(Request(prompt.ids, keys, prompt.shared_prefix, prompt.before_responses))
                owners.append((i, shown, by_order[shown]))
        for number, completions in self.sampler.sample(requests):
            i, shown, indices = owners[number]
            drawn = zip(indices, completions, strict=True)
            yield i, [self.read(index, shown, completion, seed) for index, completion in drawn]

    def identity(self, seed: int, *, hint: bool = False) -> dict[str, Any]:
        """All that a sample depends on besides its item: what a store of samples must not mix."""
        hinted = {"hint": True} if hint else {}
        return {
            "model": self.name,
            "template": self._template_name,
            "seed": seed,
            "max_new": self.max_new,
            "policy": dataclasses.asdict(self.policy),
            "dtype": self._dtype,
            **hinted,
        }

    @property
    def _template_name(self) -> str:
        return f"{self.template.name}@{self.template.digest}"

    def prompt(self, item: Item, shown: tuple[int, ...], hint: bool = False) -> Prompt | PromptTooLong:
        """Writes the prompt of an item with its responses in the order shown.

        Raises:
            UserError: the template cannot show the item.
        """
        try:
            return encode_prompt(
                self.template,
                self._tokenizer,
                [(turn.role, turn.content) for turn in item.conversation],
                [item.responses[i] for i in shown],
                reference=item.reference,
                principles=item.principles,
                hint=_hint(item, shown) if hint else None,
                max_tokens=self.prompt_limit,
            )
        except UserError as error:
            raise UserError(f"item {item.id!r}: {error}") from error

    def read(self, index: int, shown: tuple[int, ...], completion: Completion, seed: int) -> Sample:
        """Parses one completion and puts its scores back into the item's own order."""
        ids = completion.ids[:-1] if completion.stopped else completion.ids
        text = self._tokenizer.decode(ids.tolist())
        verdict = self.template.answer == "best"
        critique = parse_critique(
            text, len(shown), truncated=not completion.stopped,
            principles_heading=self.template.principles_heading, verdict=verdict,
        )  # fmt: skip
        return Sample(
            index=index,
            order=shown,
            text=text,
            principles=critique.principles,
            scores=None if critique.scores is None else unshuffle(critique.scores, shown),
            outcome=critique.outcome.value,
            tokens=len(completion.ids),
            logprob=float(np.sum(completion.logprobs, dtype=np.float64)),
            verdict_logprob=text_logprob(self._tokenizer, ids, completion.logprobs, critique.block)
            if verdict and critique.block
            else None,
            seed=seed,
        )


def _hint(item: Item, shown: tuple[int, ...]) -> Hint:
    if item.label is None:
        raise UserError("has no label to hint at; add it or sample without hints")
    if len(shown) == 1:
        return Hint(item.label)
    return Hint(shown.index(int(item.label)), item.strength)
