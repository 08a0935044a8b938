"""What the documents say can be followed: links and paths lead somewhere, commands parse, Python compiles."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from grm_jax.cli import _parser
from grm_jax.cli.gin_arguments import split_bindings
from grm_jax.data.records import OUTCOMES
from grm_jax.judge.tally import POLICIES
from grm_jax.text.template_file import load_template

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(p.relative_to(ROOT).as_posix() for p in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PATH = re.compile(r"(?<![\w./-])(?:\.ci|configs|docs|grm_jax|scripts|tests|tpu)(?:/[\w.-]+)*/[\w.-]*\w")


def text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str, *languages: str) -> list[str]:
    return [body for language, body in _FENCE.findall(text(document)) if language in languages]


def commands(document: str) -> list[str]:
    """The `grm` command lines of fenced shell blocks, continued lines joined."""
    lines = "".join(blocks(document, "bash", "sh", "shell", "console", "")).replace("\\\n", " ").splitlines()
    stripped = (line.strip().removeprefix("$ ") for line in lines)
    return [line for line in stripped if line.startswith("grm ")]


def anchors(document: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(_FENCE, "", text(document)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def with_document(collect):
    return [(document, each) for document in DOCUMENTS for each in collect(document)]


def test_the_documents_are_there():
    expected = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"}
    expected |= {
        f"docs/{name}.md"
        for name in ("arena", "design", "judging", "model", "pods", "prompts", "run_folder", "sampling")
    }
    assert expected <= set(DOCUMENTS)
    assert with_document(commands), "no command was found: the pattern has lost them"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_relative_links_lead_to_files_and_headings(document):
    for target in _LINK.findall(re.sub(_FENCE, "", text(document))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), f"{document}: {target}"
        assert path.resolve().is_relative_to(ROOT.resolve()), f"{document}: {target} leaves the project"
        if anchor:
            assert anchor in anchors(path.resolve().relative_to(ROOT.resolve()).as_posix()), f"{document}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_named_exist(document):
    for path in _PATH.findall(text(document)):
        assert (ROOT / path).exists(), f"{document}: {path}"


@pytest.mark.parametrize(("document", "command"), with_document(commands))
def test_commands_parse(document, command):
    arguments, bindings = split_bindings(shlex.split(command, comments=True)[1:])
    for symbol in ("|", ">", "&&"):
        arguments = arguments[: arguments.index(symbol)] if symbol in arguments else arguments
    try:
        parsed = _parser().parse_args(arguments)
    except SystemExit as stop:
        assert stop.code == 0, f"{document}: {command}"  # --help and --version
        return
    for file in getattr(parsed, "gin_file", []):
        assert (ROOT / file).is_file(), f"{document}: {command}"
    assert not bindings or hasattr(parsed, "gin_file"), f"{document}: {command}"


@pytest.mark.parametrize(("document", "code"), with_document(lambda document: blocks(document, "python")))
def test_python_compiles(document, code):
    compile(code, document, "exec")


@pytest.mark.parametrize(("document", "code"), with_document(lambda document: blocks(document, "toml")))
def test_templates_shown_load(document, code, tmp_path):
    assert "blocks" in tomllib.loads(code)
    (tmp_path / "template.toml").write_text(code, encoding="utf-8")
    load_template(tmp_path / "template.toml")


def test_every_vote_and_outcome_is_explained():
    for name in POLICIES:
        assert f"| `{name}`" in text("docs/judging.md"), name
    for name in OUTCOMES:
        assert f"| `{name}` |" in text("docs/prompts.md"), name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_nothing_outside_the_project_is_mentioned(document):
    for pattern in (r"\.\./shared", r"(?<![\w./-])/(?:work|tmp|home|root)\b"):
        assert not re.search(pattern, text(document)), f"{document}: {pattern}"
