"""Where results go: refused before work is spent on them."""

from pathlib import Path

from grm_jax.errors import UserError


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
