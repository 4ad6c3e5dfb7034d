"""Prompts, what is asked of an engine, what it returns, and what judges say of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from assent.records import PromptText
from assent.types.kept import Kept


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt ready for a policy.

    Args:
        id: the identity of the task; every sample of one prompt shares it.
        source: what was asked, as text or dialogue; scorers with another tokenizer re-render it.
        token_ids: the policy's tokens, at least one.
        kind: slice label, empty when unknown.
        answer: the task's reference answer, for rules; empty when there is none. The policy never sees it.
    """

    id: str
    source: PromptText
    token_ids: tuple[int, ...]
    kind: str = ""
    answer: str = ""

    def __post_init__(self) -> None:
        if not self.token_ids:
            raise ValueError(
                f"a prompt needs at least one token; got none for {self.id!r}; give it text or a BOS token"
            )


@dataclass(frozen=True, slots=True)
class StopStrings:
    """Strings that end a response as soon as its text has one of them, and how its text is read.

    Args:
        strings: none of them empty.
        decode: token ids of a response to its text.
    """

    strings: tuple[str, ...]
    decode: Callable[[Sequence[int]], str]

    def __post_init__(self) -> None:
        if not self.strings or not all(self.strings):
            raise ValueError(f"stop strings must have a letter at least; got {self.strings}; leave them out for none")

    def cut(self, text: str) -> str:
        """The text before the first of the strings; all of it where there is none."""
        return text[: min((at for s in self.strings if (at := text.find(s)) >= 0), default=len(text))]


@dataclass(frozen=True, slots=True)
class Sampling:
    """The distribution that is sampled from, which is also the one that is scored.

    Args:
        max_new_tokens: length budget of a response, its end token included.
        temperature: divides the logits of policy and reference alike, in sampling and in scoring; > 0.
        greedy: take the most probable token instead; `temperature` still scales the recorded log-probabilities.
        min_new_tokens: end tokens are impossible before this many tokens; the recorded log-probabilities are those of
            the distribution so restricted.
        stop_token_ids: a response ends with the first of these, which is kept as its last token.
        top_k: only the so many most probable tokens can be drawn, and those as probable as the last of them; 0 for all.
        top_p: of these, only the fewest most probable that have this share of their probability together, and those as
            probable as the last of them; 1 for all (nucleus sampling, arXiv 1904.09751). Which tokens were kept is
            recorded, and every log-probability is that among them.
        stop: a response also ends with the token that completes one of these strings, `min_new_tokens` or not.
    """

    max_new_tokens: int
    stop_token_ids: tuple[int, ...]
    temperature: float = 1.0
    greedy: bool = False
    min_new_tokens: int = 0
    top_k: int = 0
    top_p: float = 1.0
    stop: StopStrings | None = None

    @property
    def restricted(self) -> bool:
        """Whether top-k or top-p leaves tokens out."""
        return self.top_k > 0 or self.top_p < 1.0

    def __post_init__(self) -> None:
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_k must be 0 (all tokens) or more and top_p in (0, 1]; got {self.top_k=}, {self.top_p=}"
            )
        if not self.temperature > 0:
            raise ValueError(
                f"temperature must be above 0; got {self.temperature}; for the most probable token use greedy"
            )
        if self.max_new_tokens < 1 or self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"lengths must satisfy 1 <= max and min <= max; got {self.min_new_tokens=}, {self.max_new_tokens=}"
            )


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence to sample: the prompt's tokens and the seed of its own random stream."""

    token_ids: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What an engine returns for one request.

    Args:
        token_ids: the response, with its end token when it `ended`.
        logprobs: log-probability of each token under the distribution it was drawn from.
        ended: the response closed with a stop token or stop string within its budget.
        kept: which tokens could be drawn at each place; None for all.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: bool
    kept: Kept | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.logprobs) or not self.token_ids:
            raise ValueError(
                f"a sample needs one log-probability per token and at least one token; got "
                f"{len(self.token_ids)} tokens, {len(self.logprobs)} log-probabilities"
            )


@dataclass(frozen=True, slots=True)
class Rollout:
    """A prompt and one sampled response. Token ids are the record; `text` is derived and never re-encoded for a loss.

    Args:
        text: without what ends it, be it a token or a string.
        version: number of policy updates the engine's weights had seen.
        kept: which tokens could be drawn at each place; None for all.
    """

    prompt: Prompt
    token_ids: tuple[int, ...]
    sampler_logprobs: tuple[float, ...]
    ended: bool
    text: str
    version: int
    kept: Kept | None = field(default=None, kw_only=True, hash=False)


@dataclass(frozen=True, slots=True)
class ScoreEvent:
    """A judge's value at one response token (0 is the first). An outcome score sits on the last token."""

    index: int
    value: float


ScoreEvents = tuple[ScoreEvent, ...]
"""All events of one response; empty means "no score": the sample is dropped and counted."""


class NoScore(tuple[ScoreEvent, ...]):
    """No events, and why: equal to `()`, with a reason that is counted in metrics as `unscored/<reason>`.

    Args:
        reason: one word of small letters and _, such as `timeout`, `raised` or `declined`.
    """

    reason: str

    def __new__(cls, reason: str) -> "NoScore":
        made = super().__new__(cls, ())
        made.reason = reason
        return made

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]
        return (self.reason,)

    def __repr__(self) -> str:
        return f"NoScore({self.reason!r})"


@dataclass(frozen=True, slots=True)
class JudgedRollout(Rollout):
    """A rollout that was scored when it was sampled; who asks the same scorer again is given what it said then.

    Args:
        answers: (name of a scorer, its events).
    """

    answers: tuple[tuple[str, ScoreEvents], ...]
