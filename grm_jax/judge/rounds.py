"""Drawing in rounds: what all items still need is drawn together, then each is asked again what it needs."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from grm_jax.data.records import Item, Sample
from grm_jax.text.template import PromptTooLong

if TYPE_CHECKING:
    from grm_jax.judge.judge import Judge


def in_rounds(
    judge: "Judge",
    items: Sequence[Item],
    samples: Sequence[dict[int, Sample]],
    seed: int,
    needs: Callable[[dict[int, Sample]], Sequence[int]],
    *,
    hint: bool = False,
) -> Iterator[tuple[int, list[Sample] | PromptTooLong]]:
    """Draws until no item needs more; an item that does not fit is asked once.

    A round holds all items that need something, so the device stays full; prompts are computed anew in each.

    Args:
        judge: draws them.
        items: to be sampled.
        samples: those there are of each item by index; what is drawn is added before it is yielded.
        seed: of orders and samples.
        needs: from an item's samples to the indices to draw next, none when it has enough.
        hint: tell the judge each item's label.

    Yields:
        What `Judge.sample` yields, by the place in `items`.

    Raises:
        UserError: as `Judge.sample`.
    """
    places: Sequence[int] = range(len(items))
    while wanted := [(place, missing) for place in places if (missing := needs(samples[place]))]:
        unfit = set()
        for number, result in judge.sample([(items[place], missing) for place, missing in wanted], seed, hint=hint):
            place = wanted[number][0]
            if isinstance(result, PromptTooLong):
                unfit.add(place)
            else:
                samples[place].update({sample.index: sample for sample in result})
            yield place, result
        places = [place for place, _ in wanted if place not in unfit]
