"""Errors that teach: what happened, what was got, why it matters, how to fix it."""


class AssentError(Exception):
    """Base of every error Assent raises on purpose.

    Args:
        what: what cannot be done, in one clause.
        got: the offending value or state, as found.
        why: why it is refused rather than worked around.
        fix: what the reader should change.
    """

    def __init__(self, what: str, *, got: object, why: str, fix: str) -> None:
        self.what, self.got, self.why, self.fix = what, got, why, fix
        super().__init__(f"{what}\n  got: {got}\n  why: {why}\n  fix: {fix}")


class ConfigError(AssentError):
    """A recipe, override or spec is wrong."""


class DataError(AssentError):
    """A file, row or record is wrong."""


class ContractError(AssentError):
    """Two parts that must agree (tokenizer, template, weights, shapes) do not."""


class CheckFailed(AssentError):
    """A first-batch check of the doctor refused the set-up."""


class NonFiniteError(AssentError):
    """A loss, gradient or score is nan or infinite."""


class ArtefactError(AssentError):
    """A saved artefact or state is missing, damaged or of another kind."""
