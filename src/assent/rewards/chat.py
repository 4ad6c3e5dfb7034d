"""A language model behind an OpenAI-compatible endpoint, asked many questions at once and none of them twice."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, Protocol

from assent.rewards.asked import Failure
from assent.rewards.http import Server
from assent.rewards.memory import digest
from assent.types import Mean


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer.

    Args:
        text: as the endpoint writes it.
        likely: log-probability by token, of the most likely ones there, this one among them.
    """

    text: str
    likely: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said; `tokens` is empty where the endpoint gives no log-probabilities."""

    text: str
    tokens: tuple[Token, ...] = ()


class Notes(Protocol):
    """Texts by key."""

    def get(self, key: str) -> str | None: ...
    def put(self, key: str, text: str) -> None: ...


@dataclass
class ChatModel:
    """Questions to answers; implements `protocols.Metered`.

    Args:
        server: its `/v1/chat/completions`.
        model: as the endpoint names it.
        most_tokens: of an answer.
        temperature: 0 for judgements, which should not depend on luck (Lee et al., 2309.00267, found that sampling
            several and voting hurts).
        logprobs: ask for the log-probabilities of this many alternatives to each token; None asks for none.
        at_once: requests under way together.
        notes: answers of before.
        more: further fields of the request, as the endpoint knows them.
    """

    server: Server
    model: str
    most_tokens: int
    temperature: float
    logprobs: int | None
    at_once: int
    notes: Notes
    more: Mapping[str, Any] = field(default_factory=dict)
    _spent: Counter[str] = field(default_factory=Counter)

    def __call__(self, questions: Sequence[str]) -> list[Answer | Failure]:
        """One answer or failure per question, in order.

        Raises:
            ContractError: the endpoint wants another address or token.
        """
        keys = [digest(self.server.url, json.dumps(self._request(q), sort_keys=True)) for q in questions]
        replies: dict[str, dict[str, Any] | Failure] = {}
        new: dict[str, str] = {}
        for key, question in zip(keys, questions, strict=True):
            note = self.notes.get(key)
            if note is None:
                new.setdefault(key, question)
            else:
                self._spent["remembered"] += 1
                replies[key] = json.loads(note)
        self._ask(new, replies)
        return [_answer(replies[key]) for key in keys]

    def _ask(self, new: Mapping[str, str], replies: dict[str, dict[str, Any] | Failure]) -> None:
        """Ask what is new, and note each answer as it comes: what was paid for is not lost to a later failure."""
        with ThreadPoolExecutor(self.at_once) as pool:
            asked = {pool.submit(self.server.post, self._request(q)): key for key, q in new.items()}
            try:
                for done in as_completed(asked):
                    key, reply = asked[done], done.result()
                    self._count(reply)
                    replies[key] = reply
                    if not isinstance(reply, Failure) and not isinstance(_answer(reply), Failure):
                        self.notes.put(key, json.dumps(_kept(reply)))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _request(self, question: str) -> dict[str, Any]:
        graded = {} if self.logprobs is None else {"logprobs": True, "top_logprobs": self.logprobs}
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": self.temperature,
            "max_tokens": self.most_tokens,
            **graded,
            **self.more,
        }

    def _count(self, reply: dict[str, Any] | Failure) -> None:
        self._spent["calls"] += 1
        usage = reply.get("usage") if isinstance(reply, dict) else None
        if isinstance(usage, dict):
            for name, theirs in (("prompt_tokens", "prompt_tokens"), ("response_tokens", "completion_tokens")):
                self._spent[name] += int(usage.get(theirs) or 0)

    def metrics(self) -> Mapping[str, Mean]:
        """Calls and tokens since this was last asked."""
        spent, self._spent = self._spent, Counter()
        return {
            "judge/calls": Mean(float(spent["calls"]), 1.0),
            "judge/remembered": Mean(float(spent["remembered"]), 1.0),
            "judge/prompt_tokens": Mean(float(spent["prompt_tokens"]), 1.0),
            "judge/response_tokens": Mean(float(spent["response_tokens"]), 1.0),
        }


def _kept(reply: dict[str, Any]) -> dict[str, Any]:
    """What of a reply is read again."""
    return {"choices": reply["choices"][:1]}


def _answer(reply: dict[str, Any] | Failure) -> Answer | Failure:
    """The first choice of a reply; a refusal, by the model or by a filter before it, is no answer."""
    if isinstance(reply, Failure):
        return reply
    try:
        choice = reply["choices"][0]
        text, refused = choice["message"].get("content"), choice["message"].get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError):
        return Failure("unreadable", f"no choices[0].message in the reply: {json.dumps(reply):.300}")
    if refused or choice.get("finish_reason") == "content_filter":
        return Failure("refused", str(refused or "the endpoint's content filter"))
    if not isinstance(text, str) or not text.strip():
        return Failure("unreadable", "the answer is empty")
    return Answer(text, _tokens(choice.get("logprobs"), text))


def _tokens(logprobs: object, text: str) -> tuple[Token, ...]:
    """The tokens with their alternatives; none where they are not given in the known form or do not make the text."""
    try:
        tokens = tuple(
            Token(t["token"], {a["token"]: float(a["logprob"]) for a in [t, *t["top_logprobs"]]})
            for t in logprobs["content"]  # type: ignore[index]
        )
    except (KeyError, TypeError, ValueError):
        return ()
    return tokens if "".join(t.text for t in tokens) == text else ()
