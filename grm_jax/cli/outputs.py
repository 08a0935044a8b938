"""Where results go: refused before work is spent on them."""

from pathlib import Path

from grm_jax.errors import UserError

COMPILED = ".compiled"


def check_file(option: str, value: str | None) -> None:
    """Refuses a file to be written that is a folder or stands in none; None is no file.

    Raises:
        UserError: names the option and the remedy.
    """
    if value is None:
        return
    path = Path(value)
    if path.is_dir():
        raise UserError(f"{option} {path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {path.parent}; make it first")


def keep_compiled(run: Path | str) -> None:
    """Keeps compiled programs in the run folder, for models of one shape to share and for a run that goes on to find.

    A folder that the user has named (JAX_COMPILATION_CACHE_DIR) is used instead.
    """
    import jax

    if not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", str(Path(run, COMPILED).absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
