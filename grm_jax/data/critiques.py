"""What the arena has to teach, as endless streams of training examples.

Example i of a stream is a pure function of (its settings, i): a fresh item of the training split.
"""

import dataclasses

from grm_jax.data.arena import aids, oracle, responses, world
from grm_jax.data.arena.tasks import draw_task, write_instruction
from grm_jax.data.arena.words import chance, distinct_words, pick
from grm_jax.data.examples import CritiqueExample, InstructionExample
from grm_jax.errors import UserError
from grm_jax.keys import generator
from grm_jax.text.template import Hint

SHOWN = {"all": 1, "pair": 2, "one": 1}
"""Which of an item's responses a critique is about, and how many an item must have for that."""
_FAR = 2**32  # an item with too few responses gives way to one that far ahead in the stream


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
        given: the share of examples whose prompt gives principles, which the critique then applies (`arena.aids`).
        referenced: the share of examples whose prompt shows a reference answer, and whose oracle compared with it.
        shown: the responses shown: "all" of an item, a "pair" of them, or "one".
        verdict: critiques end with the place of the best response instead of scores, as LLM-as-a-Judge has them.
    """

    seed: int = 0
    noise: oracle.Noise = dataclasses.field(default_factory=oracle.Noise)
    breadth: tuple = oracle.BREADTH
    principles: bool = True
    hinted: float = 0.0
    given: float = 0.0
    referenced: float = 0.0
    shown: str = "all"
    verdict: bool = False

    def __post_init__(self) -> None:
        if self.shown not in SHOWN:
            raise UserError(f"ArenaCritiques.shown must be one of {', '.join(SHOWN)}, not {self.shown!r}")
        if self.hinted and self.shown != "all":
            raise UserError(f"ArenaCritiques.hinted must be 0 with shown = {self.shown!r}: the best may not be shown")
        if self.given and not self.principles:
            raise UserError("ArenaCritiques.given must be 0 without principles: what is given is stated")

    def __call__(self, index: int) -> CritiqueExample:
        """Returns example `index`."""
        example = world.generate("train", index, self.seed)
        while len(example.responses) < SHOWN[self.shown]:
            index += _FAR
            example = world.generate("train", index, self.seed)
        rng = generator("arena critique", self.seed, index)
        texts, label = example.item["responses"], example.item["label"]
        order = tuple(int(i) for i in rng.permutation(len(texts)))[: {"pair": 2, "one": 1}.get(self.shown)]
        hinted = bool(rng.random() < self.hinted)
        given = aids.rubric(example.task) if self.given and chance(rng, self.given) else ()
        compared = bool(self.referenced) and chance(rng, self.referenced)
        hint = Hint(order.index(label) if len(texts) > 1 else label) if hinted else None
        return CritiqueExample(
            conversation=(("user", example.item["prompt"]),),
            responses=tuple(texts[i] for i in order),
            critique=oracle.critique(
                example, order, rng, self.noise, breadth=self.breadth, principles=self.principles, hinted=hinted,
                given=given, compared=compared, verdict=self.verdict,
            ),
            principles=tuple(map(aids.principle, given)),
            reference=aids.reference(example).text if compared else None,
            hint=hint,
        )  # fmt: skip


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
