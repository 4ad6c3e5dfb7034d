"""Metrics: declared in the catalogue, written as JSON lines, shown in the terminal and, as an extra, in TensorBoard."""
