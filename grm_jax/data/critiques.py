"""What the arena has to teach, as endless streams of training examples.

Example i of a stream is a pure function of (its settings, i): a fresh item of the training split.
"""

import dataclasses

from grm_jax.data.arena import oracle, responses, world
from grm_jax.data.arena.tasks import draw_task, write_instruction
from grm_jax.data.arena.words import distinct_words, pick
from grm_jax.data.examples import CritiqueExample, InstructionExample
from grm_jax.keys import generator
from grm_jax.text.template import Hint


@dataclasses.dataclass(frozen=True)
class ArenaCritiques:
    """Oracle critiques: a random order of an item's responses, one draw of the noisy oracle.

    Attributes:
        seed: names the stream.
        noise: error rates of the oracle.
        breadth: probabilities that a critique looks at 1, 2, 3, ... requirements: how much of the truth it sees.
        principles: critiques state their principles; without them (an ablation) they begin with the first response.
        hinted: the share of examples whose prompt tells the label, and whose oracle knew it: how a judge learns what a
            hint is for.
    """

    seed: int = 0
    noise: oracle.Noise = dataclasses.field(default_factory=oracle.Noise)
    breadth: tuple = oracle.BREADTH
    principles: bool = True
    hinted: float = 0.0

    def __call__(self, index: int) -> CritiqueExample:
        """Returns example `index`."""
        example = world.generate("train", index, self.seed)
        rng = generator("arena critique", self.seed, index)
        texts, label = example.item["responses"], example.item["label"]
        order = tuple(int(i) for i in rng.permutation(len(texts)))
        hinted = bool(rng.random() < self.hinted)
        hint = Hint(order.index(label) if len(texts) > 1 else label) if hinted else None
        return CritiqueExample(
            conversation=(("user", example.item["prompt"]),),
            responses=tuple(texts[i] for i in order),
            critique=oracle.critique(
                example, order, rng, self.noise, breadth=self.breadth, principles=self.principles, hinted=hinted
            ),
            hint=hint,
        )


@dataclasses.dataclass(frozen=True)
class ArenaInstructions:
    """The arena's general instructions: a task, and a response that meets all that it asks for.

    Attributes:
        seed: names the stream.
    """

    seed: int = 0

    def __call__(self, index: int) -> InstructionExample:
        """Returns example `index`."""
        rng = generator("arena instruction", self.seed, index)
        response = None
        while response is None:
            task = draw_task(held_out=False, rng=rng)
            if world.split_of(task) == "train":
                response = responses.draw_response(task, (), rng)
        return InstructionExample((("user", write_instruction(task, rng)),), response.text)


@dataclasses.dataclass(frozen=True)
class ArenaReadings:
    """Lessons in reading: of one response, which word follows which, asked of all its words and of some that it lacks.

    A model made from nothing learns from them to find a word; critiques alone ask for that too seldom to teach it.

    Attributes:
        seed: names the stream.
    """

    seed: int = 0

    def __call__(self, index: int) -> InstructionExample:
        """Returns example `index`."""
        rng = generator("arena reading", self.seed, index)
        shown = pick(rng, world.generate("train", index, self.seed).responses)
        asked = [*dict.fromkeys(shown.words), *(word for word in distinct_words(rng, 2) if word not in shown.words)]
        pairs = (f"{asked[i]} {shown.follower(asked[i])}" for i in rng.permutation(len(asked)).tolist())
        # A mark stands before the first word, so that it is the token that it is in critiques.
        return InstructionExample((("user", shown.text),), f": {'; '.join(pairs)}")
