"""Checkers for tests, in a module that imports nothing: a worker process imports the module of its function, and a test
module would load transformers and every stage once for each worker."""


def always(rollout) -> float:
    return 1.0


def never(rollout) -> float:
    return 0.0


def tidy(rollout) -> float:
    """Whether it has an even number of characters: a coin that is the same for the same text."""
    return float(len(rollout.text) % 2 == 0)
