"""Training batches of prompts with their critiques, packed several to a row.

Letters: B rows, T positions.
"""

import dataclasses
from collections.abc import Callable, Iterator

import grain
import numpy as np
from grain.experimental import FirstFitPackIterDataset

from grm_jax.data.arena import oracle, world
from grm_jax.errors import UserError
from grm_jax.keys import generator
from grm_jax.text.template import PromptTooLong, encode_prompt
from grm_jax.text.template_file import Template
from grm_jax.text.tokenizer import Tokenizer

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class CritiqueExample:
    """What a training row is made of: a conversation, responses in the order shown, and the critique to learn."""

    conversation: tuple[tuple[str, str], ...]
    responses: tuple[str, ...]
    critique: str


@dataclasses.dataclass(frozen=True)
class ArenaCritiques:
    """Endless oracle critiques of the arena's training split.

    Example i is a pure function of (seed, i): a fresh item, a random order of its responses, one draw of the noisy oracle.

    Attributes:
        seed: names the stream.
        noise: error rates of the oracle.
    """

    seed: int = 0
    noise: oracle.Noise = dataclasses.field(default_factory=oracle.Noise)

    def __call__(self, index: int) -> CritiqueExample:
        """Returns example `index`."""
        example = world.generate("train", index, self.seed)
        rng = generator("arena critique", self.seed, index)
        responses = example.item["responses"]
        order = tuple(int(i) for i in rng.permutation(len(responses)))
        return CritiqueExample(
            conversation=(("user", example.item["prompt"]),),
            responses=tuple(responses[i] for i in order),
            critique=oracle.critique(example, order, rng, self.noise),
        )


def encode_example(example: CritiqueExample, template: Template, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Encodes an example for next-token training.

    Returns:
        ids [T + 1] int32 (prompt, critique, end of turn) and weights [T + 1] float32: 0 on the prompt, 1 on the rest.
    """
    prompt = encode_prompt(template, tokenizer, example.conversation, example.responses)
    assert not isinstance(prompt, PromptTooLong)  # no limit was given
    critique = [*tokenizer.encode(example.critique), tokenizer.control_id("<end_of_turn>")]
    ids = np.concatenate([prompt.ids, np.asarray(critique, np.int32)])
    weights = np.zeros(len(ids), np.float32)
    weights[len(prompt.ids) :] = 1.0
    return ids, weights


class _Source:
    """Random access to encoded examples, as grain wants it."""

    def __init__(
        self,
        examples: Callable[[int], CritiqueExample],
        template: Template,
        tokenizer: Tokenizer,
        count: int,
        length: int,
    ):
        self._examples, self._template, self._tokenizer = examples, template, tokenizer
        self._count, self._length = count, length

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Batch:
        ids, weights = encode_example(self._examples(index), self._template, self._tokenizer)
        if len(ids) - 1 > self._length:
            raise UserError(
                f"training example {index} has {len(ids) - 1} tokens, a row holds {self._length}: give longer rows"
            )
        return {"tokens": ids[:-1], "targets": ids[1:], "weights": weights[1:]}


def packed_batches(
    examples: Callable[[int], CritiqueExample],
    template: Template,
    tokenizer: Tokenizer,
    *,
    rows: int,
    length: int,
    count: int = 2**40,
) -> Iterator[Batch]:
    """Yields batches of `rows` rows of `length` tokens, each packed with whole examples, in the examples' order.

    Args:
        examples: example i, for i from 0.
        template: how prompts are written.
        tokenizer: encodes them.
        rows: B.
        length: T.
        count: how many examples there are.

    Yields:
        tokens, targets, positions, segments int32 [B, T], weights float32 [B, T]. Segment id 0 is padding; positions restart with
        each example.
    """
    source = _Source(examples, template, tokenizer, count, length)
    lengths = {"tokens": length, "targets": length, "weights": length}
    dataset = grain.MapDataset.source(source).to_iter_dataset(
        grain.ReadOptions(num_threads=1, prefetch_buffer_size=512)
    )
    packed = FirstFitPackIterDataset(dataset, length_struct=lengths, num_packing_bins=rows, shuffle_bins=False)
    for batch in packed.batch(rows, drop_remainder=True):
        yield {
            "tokens": batch["tokens"],
            "targets": batch["targets"],
            "weights": batch["weights"],
            "positions": batch["tokens_positions"],
            "segments": batch["tokens_segment_ids"],
        }
