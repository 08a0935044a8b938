"""Critiques of the arena's noisy oracle, as training examples."""

import dataclasses

from grm_jax.data.arena import oracle, world
from grm_jax.data.examples import CritiqueExample
from grm_jax.keys import generator


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
