"""The embedded domain: a help desk whose texts, tasks, noisy demonstrations and gold judgement are programs.

A run from nothing needs text, people who demonstrate and people who compare; here all three are simulated, so that it
takes minutes and its result can be judged exactly. `cases` shows the frame of a prompt, `answers` what is wrong with
the demonstrations, `judgement` what a good response is, `safety` what a harmful one is,
`critic` a reader by principles.
"""

from assent.data.domain.cases import KINDS
from assent.data.domain.critic import SimulatedCritic
from assent.data.domain.generate import demonstrations, documents, ideal, tasks
from assent.data.domain.judgement import Judgement, judge
from assent.data.domain.safety import UNSAFE_KINDS, Harm, judge_harm, judge_helpfulness
from assent.records import PromptText

__all__ = [
    "KINDS",
    "UNSAFE_KINDS",
    "Harm",
    "Judgement",
    "PromptText",
    "SimulatedCritic",
    "demonstrations",
    "documents",
    "ideal",
    "judge",
    "judge_harm",
    "judge_helpfulness",
    "tasks",
]
