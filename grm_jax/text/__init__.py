"""Tokenizers, prompt templates and the reading of critiques; imports no jax."""
