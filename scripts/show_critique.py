"""Prints one critique of a run in full: of two responses, read without trouble, and in favour of the labelled one.

usage: python scripts/show_critique.py ITEMS RUN
"""

import sys

from grm_jax.data.jsonl import read_jsonl_items
from grm_jax.data.records import Item, Sample
from grm_jax.errors import UserError
from grm_jax.judge.run_folder import read_run


def find(items_file: str, run: str) -> tuple[Item, Sample]:
    items = {item.id: item for item in read_jsonl_items(items_file)}
    for entry in read_run(run):
        item = items.get(entry.judgement.id)
        if item is None or entry.n != 2 or item.label is None:
            continue
        for sample in entry.judgement.samples:
            if (
                sample.scores
                and sample.principles
                and sample.scores[int(item.label)] > sample.scores[1 - int(item.label)]
            ):
                return item, sample
    raise UserError(f"{run}: holds no critique of two responses that favours the labelled one; judge more items")


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit((__doc__ or "").split("\n\n")[1].strip())
    try:
        item, sample = find(*sys.argv[1:])
    except UserError as error:
        raise SystemExit(str(error)) from None
    print(f"item {item.id}, critique {sample.index} ({sample.tokens} tokens)\n")
    for turn in item.conversation:
        print(f"{turn.role}: {turn.content}")
    for place, index in enumerate(sample.order, 1):
        print(f"response {place}: {item.responses[index]}" + ("   <- labelled best" if index == item.label else ""))
    print(f"\nthe judge writes:\n{sample.text}")


if __name__ == "__main__":
    main()
