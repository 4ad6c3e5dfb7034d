"""A reward model that somebody else serves over HTTP.

The protocol. A request is posted as JSON::

    {"items": [{"prompt": "...", "response": "...", "ended": true, "kind": "", "answer": ""}, ...]}

A prompt is text, or a list of `{"role": ..., "content": ...}`. `ended` is whether the response came to its end by
itself; `kind` and `answer` are the task's slice and reference answer, empty when unknown. The reply has one number per
item, in order, null for "no score"::

    {"scores": [0.3, null, ...]}
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from assent.errors import ContractError
from assent.rewards.asked import Failure
from assent.rewards.http import Server
from assent.types import Rollout


@dataclass(frozen=True)
class RemoteRewards:
    """Asks for the scores of many rollouts, in batches, several at a time.

    Args:
        server: where.
        batch: rollouts of one request.
        at_once: requests under way together.
    """

    server: Server
    batch: int
    at_once: int

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | Failure]:
        """One number or failure per rollout, in order.

        Raises:
            ContractError: nobody could be reached for any of them, or a reply does not keep the protocol.
        """
        parts = [rollouts[i : i + self.batch] for i in range(0, len(rollouts), self.batch)]
        with ThreadPoolExecutor(self.at_once) as pool:
            answers = [a for part in pool.map(self._ask, parts) for a in part]
        if answers and all(isinstance(a, Failure) and a.reason in ("unreachable", "timeout") for a in answers):
            assert isinstance(answers[0], Failure)
            raise ContractError(
                "the reward server cannot be reached",
                got=f"{answers[0].detail}; {self.server.retries + 1} tries for each of {len(parts)} requests",
                why="no response of this step has a score",
                fix="start it, or mend the address; the same command continues from the last checkpoint",
            )
        return answers

    def _ask(self, rollouts: Sequence[Rollout]) -> list[float | Failure]:
        reply = self.server.post({"items": [item(r) for r in rollouts]})
        if isinstance(reply, Failure):
            return [reply] * len(rollouts)
        scores = reply.get("scores")
        if not isinstance(scores, list) or len(scores) != len(rollouts):
            raise ContractError(
                "the reward server does not keep the protocol",
                got=f"{_shown(reply)} for {len(rollouts)} items",
                why="a score that cannot be matched with its response would train the wrong one",
                fix='reply {"scores": [...]} with one number or null per item, in their order',
            )
        return [_score(s) for s in scores]


def item(rollout: Rollout) -> dict[str, Any]:
    """One rollout as the protocol has it."""
    source = rollout.prompt.source
    prompt = source if isinstance(source, str) else [{"role": m.role, "content": m.content} for m in source]
    return {
        "prompt": prompt,
        "response": rollout.text,
        "ended": rollout.ended,
        "kind": rollout.prompt.kind,
        "answer": rollout.prompt.answer,
    }


def _score(said: object) -> float | Failure:
    if said is None:
        return Failure("declined")
    if isinstance(said, bool) or not isinstance(said, (int, float)):
        return Failure("not_a_number", f"the server's score is {said!r:.200}")
    return float(said) if math.isfinite(said) else Failure("not_finite", f"the server's score is {said}")


def _shown(reply: dict[str, Any]) -> str:
    scores = reply.get("scores")
    return f"{len(scores)} scores" if isinstance(scores, list) else f"an object with the keys {sorted(reply)}"
