"""The settings of training: what is refused, and that the document names all of them with their defaults."""

import dataclasses
import re
from pathlib import Path

import pytest

from grm_jax.errors import UserError
from grm_jax.train.metrics import WALL_CLOCK
from grm_jax.train.sft import Sft
from grm_jax.train.training import Training

DOCUMENT = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
TABLE = dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) \|", DOCUMENT, re.MULTILINE))


def test_the_document_has_every_setting_with_its_default():
    for field in dataclasses.fields(Sft):
        required = field.default is dataclasses.MISSING
        told = TABLE[field.name]
        assert told == "required" if required else told == str(field.default) or float(told) == field.default, (
            field.name
        )


def test_the_document_has_every_metric():
    names = {"step", "loss", "gradient_norm", "weight", "skipped_steps", "learning_rate", *WALL_CLOCK}
    assert names <= TABLE.keys()


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0}, {"accumulate": 0}, {"log_every": 0}, {"learning_rate": 0.0}, {"learning_rate": float("nan")},
        {"clip": 0.0}, {"lora_alpha": 0.0}, {"warmup": -1}, {"weight_decay": -0.1}, {"lora_rank": -1}, {"save_every": -1},
        {"export_every": -1}, {"final_fraction": 1.5}, {"beta1": 1.0}, {"beta2": -0.1}, {"ema_decay": 1.0},
        {"schedule": "step"}, {"optimizer": "sgd"}, {"dtype": "float16"}, {"peak_flops": 0.0},
    ],
    ids=str,
)  # fmt: skip
def test_a_setting_that_means_nothing_is_refused_by_name(bad):
    (name,) = bad
    with pytest.raises(UserError, match=rf"^Training\.{name} must .+, not {re.escape(str(bad[name]))}$"):
        Training(**{"steps": 1} | bad)


@pytest.mark.parametrize("bad", [{"rows": 0}, {"length": 0}, {"rows": 3, "accumulate": 2}], ids=str)
def test_rows_and_their_length_are_refused_by_name(bad):
    with pytest.raises(UserError, match=rf"^Sft\.{next(iter(bad))} must"):
        Sft(steps=1, **bad)
