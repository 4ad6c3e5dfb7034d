"""Transformers models as Assent uses them: folders in and out, tokenizers, scalar heads, and the one forward pass."""
