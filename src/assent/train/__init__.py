"""Learner, optimisers, schedule, scoring, checkpoint."""
