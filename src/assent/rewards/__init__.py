"""Scorers of rollouts: one file, one kind of judge."""
