"""Who gives AI feedback, as recipes name it: a policy folder, an OpenAI-compatible endpoint, the simulated critic."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import torch
from pydantic import Field

from assent.config import Frozen
from assent.data import domain
from assent.models.folders import CausalModel
from assent.models.forward import ModelForward, in_blocks
from assent.models.tokenizer import encode_prompt
from assent.pipeline.stage import StageContext
from assent.records import Message, PromptText
from assent.rewards.asked import Failure
from assent.rewards.critique import Critic, Draft, EndpointWriter, Revised, WrittenCritique
from assent.rewards.judge import Asked, Comparer, EndpointChooser, Pair
from assent.rewards.templates import Question
from assent.rewards.verdicts import LETTERS, Choice
from assent.rollout.randomness import derive_seed
from assent.rollout.source import sample
from assent.stages.generation import decoder, engine_of
from assent.stages.parts import Generation, ModelRef, frozen, load_policy, require_room, response_ids
from assent.stages.scorers.judge import ChatSettings, Template
from assent.types import Mean, Prompt, Sequences

Spent = Callable[[], Mapping[str, Mean]]
"""What was spent since it was last called."""


@dataclass(frozen=True)
class Feedback:
    """A source of AI feedback, ready.

    Args:
        compare: chooses between two responses.
        critic: criticises and revises.
        spent: calls and tokens; nothing where they are free.
    """

    compare: Comparer
    critic: Critic
    spent: Spent


class Templates(Frozen):
    """What a model is asked. `choose` may be `principle_reasoned` for a model that thinks before it answers, or
    `pairwise`, which has no blank for a principle."""

    choose: Template = "principle"
    critique: Template = "critique"
    revision: Template = "revision"


class FeedbackModel(Protocol):
    """A feedback model as a recipe names it."""

    @property
    def label(self) -> str:
        """Recorded as the annotator."""
        ...

    def feedback(self, context: StageContext) -> Feedback: ...


class EndpointFeedback(Frozen):
    """A model behind an OpenAI-compatible endpoint: `{endpoint: {endpoint: URL, model: NAME}}`.

    Args:
        endpoint: asked for choices.
        writes: asked for critiques and revisions, with more tokens and some temperature; `endpoint` with 512 tokens at
            0.7 when None.
    """

    endpoint: ChatSettings
    writes: ChatSettings | None = None
    templates: Templates = Templates()

    @property
    def label(self) -> str:
        return f"{self.endpoint.model} {self.templates.choose}"

    def feedback(self, context: StageContext) -> Feedback:
        chooses = self.endpoint.chat()
        own = self.endpoint.model_copy(update={"most_tokens": 512, "temperature": 0.7, "logprobs": None})
        writes = (self.writes or own).chat()

        def spent() -> Mapping[str, Mean]:
            one, other = chooses.metrics(), writes.metrics()
            return {name: one[name] + other[name] for name in one}

        return Feedback(
            Asked(EndpointChooser(chooses), Question(self.templates.choose)),
            _written(EndpointWriter(writes), self.templates),
            spent,
        )


class PolicyFeedback(Frozen):
    """A policy of one's own, by our engine: `{policy: NAME}`, NAME a stage, a folder or a hub name.

    Its choice is read from the model: the log-probabilities of the two letters as its answer, normalised (Bai et al.,
    2212.08073, section 4.1).

    Args:
        generation: how critiques and revisions are drawn.
    """

    policy: ModelRef
    generation: Generation = Generation(max_new_tokens=256)
    templates: Templates = Templates()

    @property
    def label(self) -> str:
        return f"{self.policy} {self.templates.choose}"

    def feedback(self, context: StageContext) -> Feedback:
        causal = load_policy(context, self.policy)
        frozen(causal.model)
        return Feedback(
            Asked(PolicyChooser(causal), Question(self.templates.choose)),
            _written(PolicyWriter(causal, self.generation, context.seed), self.templates),
            dict,
        )


class SimulatedFeedback(Frozen):
    """The simulated critic of the embedded domain: `{simulated: domain}`; see `data.domain.critic` for its faults."""

    simulated: Literal["domain"]
    misses: float = Field(0.1, ge=0, le=1)
    alarms: float = Field(0.02, ge=0, le=1)

    @property
    def label(self) -> str:
        return "simulated critic"

    def feedback(self, context: StageContext) -> Feedback:
        reads = SimulatedReader(domain.SimulatedCritic(self.misses, self.alarms), context.seed)
        return Feedback(reads.choices, reads, dict)


AnyFeedbackModel = EndpointFeedback | PolicyFeedback | SimulatedFeedback


def _written(writer: "EndpointWriter | PolicyWriter", templates: Templates) -> WrittenCritique:
    return WrittenCritique(writer, Question(templates.critique), Question(templates.revision))


# ------------------------------------------------------------------------------------------------ a policy


@dataclass(frozen=True)
class PolicyChooser:
    """Implements `rewards.judge.Chooser` by the log-probabilities of both letters."""

    causal: CausalModel

    def choose(self, questions: Sequence[str]) -> list[Choice | Failure]:
        prompts, responses = [], []
        for question in questions:
            source, answer = _posed(self.causal, question)
            ids = encode_prompt(self.causal.tokenizer, source)
            prompts += [ids] * len(LETTERS)
            responses += [response_ids(self.causal.tokenizer, source, answer + x, end=False) for x in LETTERS]
        sequences = Sequences.of(prompts, responses)
        require_room(self.causal.model, int(sequences.lengths_B.max()))
        sums = in_blocks(partial(_sums, ModelForward(policy=self.causal.model)), sequences)[0]
        first = torch.softmax(sums.double().view(-1, len(LETTERS)), 1)[:, 0].tolist()
        return [Choice(p, graded=True) for p in first]


def _sums(forward: ModelForward, sequences: Sequences) -> tuple[torch.Tensor]:
    there = sequences.to(forward.device)
    return (torch.where(there.mask_BT, forward.logprobs(there), 0.0).sum(1),)


@dataclass(frozen=True)
class PolicyWriter:
    """Implements `rewards.critique.Writer` by sampling; what it writes depends on the seed and the question."""

    causal: CausalModel
    generation: Generation
    seed: int

    def write(self, questions: Sequence[str]) -> list[str | Failure]:
        posed = {q: _posed(self.causal, q)[0] for q in questions}
        prompts = [Prompt(q, s, tuple(encode_prompt(self.causal.tokenizer, s))) for q, s in posed.items()]
        if not prompts:
            return []
        require_room(self.causal.model, max(len(p.token_ids) for p in prompts) + self.generation.max_new_tokens)
        rollouts = sample(
            engine_of(self.causal, slots=self.generation.slots),
            prompts,
            self.generation.sampling(self.causal.tokenizer),
            seed=self.seed,
            decode=decoder(self.causal, self.generation.stop_strings),
        )
        said = {r.prompt.id: r.text.strip() if r.ended else "" for r in rollouts}
        return [
            said[q] or Failure("unreadable", "the policy wrote nothing, or did not come to an end") for q in questions
        ]


def _posed(causal: CausalModel, question: str) -> tuple[PromptText, str]:
    """A question as this policy reads it, and what stands before its answer: a turn where it has a template for turns,
    else text that an answer continues."""
    if causal.tokenizer.chat_template is not None:
        return (Message("user", question),), ""
    return f"{question}\n\nAnswer:", " "


# ------------------------------------------------------------------------------------------------ simulated


@dataclass(frozen=True)
class SimulatedReader:
    """The simulated critic with randomness that depends on what is read, not on when."""

    critic: domain.SimulatedCritic
    seed: int

    def revise(self, drafts: Sequence[Draft]) -> list[Revised | Failure]:
        return [
            Revised(*self.critic.revise(d.prompt, d.response, d.about, rng=self._rng(d.key, d.response)))
            for d in drafts
        ]

    def choices(self, pairs: Sequence[Pair]) -> list[Choice | Failure]:
        return [
            Choice(
                self.critic.first_preferred(p.prompt, p.a, p.b, p.about, rng=self._rng(str(p.prompt), p.a, p.b)),
                graded=True,
            )
            for p in pairs
        ]

    def _rng(self, *parts: str) -> random.Random:
        return random.Random(derive_seed(self.seed, *parts))
