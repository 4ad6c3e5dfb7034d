"""The append-only store of feedback."""

from assent.feedback.store.store import Store
from assent.feedback.store.values import Answered, Happened, Progress, Shown

__all__ = ["Answered", "Happened", "Progress", "Shown", "Store"]
