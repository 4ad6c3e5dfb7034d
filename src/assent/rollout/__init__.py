"""Sampling: the native engine, the eager oracle, and the sources that feed prompts through them."""
