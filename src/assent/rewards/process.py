"""A process reward model as a scorer: an event at the last token of each step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from assent.types import Delimited, Rollout, ScoreEvent, ScoreEvents, Sequences


@dataclass(frozen=True, slots=True)
class ReadSolution:
    """A rollout as a process reward model reads it.

    Args:
        prompt_ids, response_ids: in the model's own tokens.
        ends: index of the last token of each step among them.
    """

    prompt_ids: Sequence[int]
    response_ids: Sequence[int]
    ends: Sequence[int]


Read = Callable[[Rollout, Sequence[int]], ReadSolution]
"""A rollout, and the last of its tokens of each step, to what the model reads."""

Form = Callable[[Tensor], Tensor]
"""The logits of a solution's steps, [S], to what each step earns, [S]."""


@dataclass(frozen=True)
class ProcessScorer:
    """Scores every step. Steps are found on the sampled tokens; the events stand there whatever the model reads.

    Args:
        name: of the score in metrics.
        steps: where the steps of a response end.
        read: see `same_steps` for a model with the policy's tokenizer.
        logits: of every token that the mask names, [B, T]; 0 elsewhere.
        form: from logits to rewards.
    """

    name: str
    steps: Delimited
    read: Read
    logits: Callable[[Sequences], Tensor]
    form: Form

    def score(self, rollouts: Sequence[Rollout]) -> list[ScoreEvents]:
        ends = [self.steps.ends(r.token_ids) for r in rollouts]
        read = [self.read(r, e) for r, e in zip(rollouts, ends, strict=True)]
        logits_BT = self.logits(asked(read))
        answers = []
        for row, (solution, placed) in enumerate(zip(read, ends, strict=True)):
            earned = self.form(logits_BT[row, torch.tensor(solution.ends)]).tolist()
            answers.append(tuple(ScoreEvent(t, value) for t, value in zip(placed, earned, strict=True)))
        return answers


def asked(read: Sequence[ReadSolution]) -> Sequences:
    """The solutions as a block whose mask names the last token of each step."""
    sequences = Sequences.of([s.prompt_ids for s in read], [s.response_ids for s in read])
    at_BT = torch.zeros_like(sequences.mask_BT)
    for row, solution in enumerate(read):
        at_BT[row, torch.tensor(solution.ends)] = True
    return replace(sequences, mask_BT=at_BT)


def same_steps(rollout: Rollout, ends: Sequence[int]) -> ReadSolution:
    """For a model with the policy's tokenizer: token ids are the record."""
    return ReadSolution(rollout.prompt.token_ids, rollout.token_ids, ends)
