"""The embedded domain: a help desk whose texts, tasks, noisy demonstrations and gold judgement are programs.

A run from nothing needs text, people who demonstrate and people who compare; here all three are simulated, so that it
takes minutes and its result can be judged exactly. `cases` shows the frame of a prompt, `answers` what is wrong with
the demonstrations, `judgement` what a good response is.
"""

from ...records import PromptText
from .cases import KINDS
from .generate import demonstrations, documents, ideal, tasks
from .judgement import Judgement, judge

__all__ = ["KINDS", "Judgement", "PromptText", "demonstrations", "documents", "ideal", "judge", "tasks"]
