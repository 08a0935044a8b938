from pathlib import Path

import pytest

from grm_jax.errors import UserError
from grm_jax.text.template import load_template
from grm_jax.text.template_file import Literal, Placeholder

GOOD = r"""
name = "mine"
principles_heading = "Criteria:"
[roles]
user = "U"
[blocks]
instruction = "{bos}Judge {{1, 2}} %s.\n"
turn = "{role}: {content}\n"
response = "{number}={content}\n"
closing = '\boxed{{{slots}}}'
[single]
closing = '\boxed{{x}}'
"""


def load(tmp_path: Path, text: str):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return load_template(path)


def test_blocks_split_into_literals_and_placeholders(tmp_path: Path):
    template = load(tmp_path, GOOD)
    assert (template.name, template.principles_heading, template.roles) == ("mine", "Criteria:", {"user": "U"})
    assert template.block("instruction", 2) == (Placeholder("bos"), Literal("Judge {1, 2} %s.\n"))
    assert template.block("closing", 2) == (Literal("\\boxed{"), Placeholder("slots"), Literal("}"))


def test_one_response_takes_its_variant_and_falls_back_to_the_general_block(tmp_path: Path):
    template = load(tmp_path, GOOD)
    assert template.block("closing", 1) == (Literal("\\boxed{x}"),)
    assert template.block("response", 1) == template.block("response", 2)
    assert template.block("responses_open", 1) == ()


@pytest.mark.parametrize("block", ["principle", "reference", "hint", "hint_strength", "hint_score"])
def test_a_field_the_template_cannot_show_is_not_dropped(tmp_path: Path, block: str):
    with pytest.raises(UserError, match=f"no block '{block}'"):
        load(tmp_path, GOOD).block(block, 2)


def test_the_digest_follows_the_wording_and_nothing_else(tmp_path: Path):
    digest = load(tmp_path, GOOD).digest
    assert load(tmp_path, "# a comment\n" + GOOD).digest == digest
    assert load(tmp_path, GOOD.replace("Judge", "judge")).digest != digest


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "mine"', "", "'name' must be a string"),
        ('name = "mine"', "name = 3", "'name' must be a string"),
        ('"Criteria:"', '""', "'principles_heading' must be a string that is not empty"),
        ("[roles]", "[rolls]", "unknown key 'rolls'"),
        ("[roles]", "roles = 'U'\n[x]", "unknown key 'x'"),
        ('[roles]\nuser = "U"', "", None),
        ('user = "U"', "user = 7", r"\[roles\] user must be a string, not int"),
        ("[single]", "[[single]]", "'single' must be a table"),
        ('turn = "{role}: {content}\\n"', "", r"\[blocks\] lacks 'turn'"),
        ("turn =", "turns =", "unknown key 'turns'"),
        ("{content}\\n", "{text}\\n", r"\[blocks\] turn: unknown placeholder \{text\}; use \{bos\}, \{content\}"),
        ("{role}: {content}", "{role}", r"\[blocks\] turn: does not show \{content\}"),
        ("{role}", "{role", r"unknown placeholder \{"),
        ("{role}", "role}", r"unknown placeholder \}"),
        ("{role}", "{role!r}", "unknown placeholder"),
        ("{role}", "{content.__class__}", "unknown placeholder"),
        ("{role}", "{number}", r"unknown placeholder \{number\}"),
        ("[single]", "hint = 'The best is known.'\n[single]", r"\[blocks\] hint: does not show \{number\}"),
        ("{bos}", "{content}", r"\[blocks\] instruction: unknown placeholder"),
        ("'\\boxed{{x}}'", "'{reference}'", r"\[single\] closing: unknown placeholder"),
        ('"mine"', '"mine', "is not TOML"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, old: str, new: str, said: str | None):
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    if said is None:
        assert load(tmp_path, text).roles == {}
        return
    with pytest.raises(UserError, match=said) as error:
        load(tmp_path, text)
    assert "mine.toml" in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    for source, said in (
        ("grn", "cannot be read"),
        (tmp_path, "cannot be read"),
        (tmp_path / "latin.toml", "not UTF-8"),
    ):
        with pytest.raises(UserError, match=said):
            load_template(source)


@pytest.mark.parametrize("name", ["grm", "tiny"])
def test_packaged_templates_have_every_optional_block(name: str):
    template = load_template(name)
    assert template.name == name
    for block in ("principle", "reference", "hint", "hint_strength", "hint_score"):
        assert template.block(block, 2), block


def test_the_general_judge_asks_for_what_the_parser_reads():
    template = load_template("grm")
    for n, asked in ((1, "\\boxed{x}"), (2, "\\boxed{")):
        shown = "".join(part.text for part in template.block("closing", n) if isinstance(part, Literal))
        assert asked in shown
        assert f"\n{template.principles_heading}" in shown
