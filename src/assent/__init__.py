"""Assent: train language models from human feedback.

Importing the package is free: it loads neither torch nor transformers.
"""

__version__ = "0.1.0"
