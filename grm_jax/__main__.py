"""`python -m grm_jax` is `grm`."""

from grm_jax.cli import command

command()
