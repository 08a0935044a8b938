"""Model folders: Hugging Face safetensors and Orbax, in and out."""

from grm_jax.checkpoints.convert import convert
from grm_jax.checkpoints.folder import copy_side_files, fingerprint, kind, leaves, load_params
from grm_jax.checkpoints.huggingface import load_hugging_face, save_hugging_face
from grm_jax.checkpoints.orbax import load_orbax, save_orbax

__all__ = [
    "convert",
    "copy_side_files",
    "fingerprint",
    "kind",
    "leaves",
    "load_hugging_face",
    "load_orbax",
    "load_params",
    "save_hugging_face",
    "save_orbax",
]
