"""Readers, templates, loaders that resume, and the embedded domain."""
