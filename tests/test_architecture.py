"""The table of rooms in docs/design.md, held as a law."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "grm_jax"
FLOORS = {
    room: -1 if floor == "-" else int(floor)
    for floor, rooms in re.findall(
        r"^\| ([\d-]+) \| (.+?) \|", (ROOT / "docs" / "design.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    for room in re.findall(r"`(\w+)(?:/|\.py)`", rooms)
}
# The package itself offers what lies below the command line; the command line may use it, nothing else may.
FLOORS |= {"__init__": FLOORS["cli"] - 1, "__main__": FLOORS["cli"] + 1}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def room(parts: tuple[str, ...]) -> str:
    """The room of grm_jax.<parts>; the package itself is `__init__`."""
    return Path(parts[0]).stem if parts else "__init__"


def imported(module: Path) -> set[str]:
    """The full names of all that a module imports anywhere, inside functions and for type checking too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            # `from grm_jax import data` names a room only with the name that follows
            names.update(
                f"{node.module}.{alias.name}" if node.module == "grm_jax" else node.module for alias in node.names
            )
    return names


def rooms_used(module: Path) -> set[str]:
    used = set()
    for name in imported(module):
        parts = tuple(name.split("."))
        if parts[0] == "grm_jax":
            known = parts[1:] if len(parts) > 1 and parts[1] in FLOORS else ()
            used.add(room(known))
    return used


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after running code."""
    script = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


def test_the_table_names_every_room():
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there == set(FLOORS)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_only_its_own_room_and_lower_floors(module):
    own = room(module.parts)
    above = {name for name in rooms_used(module) if name != own and FLOORS[name] >= FLOORS[own]}
    assert not above, f"{module} on floor {FLOORS[own]} imports {above}"


def test_text_imports_no_array_library_of_accelerators():
    for module in MODULES:
        if room(module.parts) == "text":
            assert not {name.partition(".")[0] for name in imported(module)} & {"jax", "flax", "optax", "orbax"}, module


@pytest.mark.parametrize("name", ["evaluate", "text", "judge"])
def test_what_needs_no_model_loads_no_jax(name):
    needs_jax = {"judge/judge.py", "judge/loading.py", "judge/meta.py"}
    modules = [path for path in MODULES if room(path.parts) == name and path.as_posix() not in needs_jax]
    dotted = [".".join(("grm_jax", *path.with_suffix("").parts)).removesuffix(".__init__") for path in modules]
    loaded = loaded_after("\n".join(f"import {each}" for each in ["grm_jax", *dotted]))
    assert "grm_jax" in loaded
    assert not loaded & {"jax", "flax", "orbax", "torch", "transformers"}


def test_help_is_quick_because_it_loads_neither_jax_nor_gin():
    loaded = loaded_after("import grm_jax.cli\ngrm_jax.cli._parser().format_help()")
    assert not loaded & {"jax", "flax", "gin", "grain", "orbax", "matplotlib", "transformers"}
