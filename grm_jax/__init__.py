"""Generative reward models with inference-time scaling, in JAX."""

__version__ = "0.1.0"
