"""The append-only store of feedback."""

from typing import TYPE_CHECKING, Any

from assent.feedback.store.values import Answered, Happened, Progress, Shown

if TYPE_CHECKING:
    from assent.feedback.store.store import Store

__all__ = ["Answered", "Happened", "Progress", "Shown", "Store"]


def __getattr__(name: str) -> Any:
    """`Store` when it is first asked for: a run that asks nobody need not load a database."""
    if name != "Store":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from assent.feedback.store.store import Store

    return Store
