"""Asking a server: one JSON object there, one back, with patience for what passes and none for what does not."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from assent.errors import ConfigError, ContractError
from assent.rewards.asked import Failure

PASSES = (408, 425, 429, 500, 502, 503, 504, 529)
"""Statuses that another try may cure."""
ABOUT_THIS_ONE = (400, 409, 413, 415, 422)
"""Statuses that say no to this request and nothing of the others: too long, filtered, not understood."""
LONGEST_PAUSE = 60.0
"""Seconds; also where a server asks for more in Retry-After."""


@dataclass(frozen=True)
class Server:
    """Where and how to ask.

    Args:
        url: where requests are posted.
        token_env: name of the environment variable that holds a bearer token; its value is never written anywhere.
        seconds: longest that one try may take.
        retries: further tries after one that found nobody or a status of `PASSES`.
        pause: seconds before the first retry, doubled before each other one; a server's Retry-After goes before.
        sleep: waits; for tests.
    """

    url: str
    token_env: str | None = None
    seconds: float = 60.0
    retries: int = 4
    pause: float = 0.5
    sleep: Callable[[float], None] = time.sleep

    def post(self, payload: dict[str, Any]) -> dict[str, Any] | Failure:
        """The answer, or why there is none: `unreachable`, `timeout`, `unreadable` or `refused`.

        Raises:
            ConfigError: the token's variable is not set.
            ContractError: the server wants another address, token or method, which no retry and no other sample mends.
        """
        failure = Failure("unreachable")
        for attempt in range(self.retries + 1):
            answer, wait = self._once(payload)
            if not isinstance(answer, Failure) or wait is None:
                return answer
            failure = answer
            if attempt < self.retries:
                self.sleep(min(LONGEST_PAUSE, max(wait, self.pause * 2**attempt)))
        return failure

    def _once(self, payload: dict[str, Any]) -> tuple[dict[str, Any] | Failure, float | None]:
        """One try; the second is the least to wait before another one, None where another would change nothing."""
        import httpx2

        try:
            response = self._client.post(self.url, json=payload)
        except httpx2.TimeoutException:
            return Failure("timeout", f"no answer from {self.url} within {self.seconds:g} s"), 0.0
        except httpx2.TransportError as error:
            return Failure("unreachable", f"{self.url}: {type(error).__name__}: {error}"), 0.0
        if response.status_code in PASSES:
            said = f"{self.url} answered {response.status_code}: {_brief(response.text)}"
            return Failure("unreachable", said), _seconds(response.headers.get("retry-after"))
        if response.status_code in ABOUT_THIS_ONE:
            return Failure("refused", f"{self.url} answered {response.status_code}: {_brief(response.text)}"), None
        if not response.is_success:
            raise self._turned_away(response.status_code, response.text)
        try:
            answer = response.json()
        except ValueError:
            return Failure("unreadable", f"{self.url} answered no JSON: {_brief(response.text)}"), None
        if isinstance(answer, dict):
            return answer, None
        return Failure("unreadable", f"{self.url} answered no JSON object: {_brief(response.text)}"), None

    @cached_property
    def _client(self) -> Any:
        import httpx2

        return httpx2.Client(headers=self._headers(), timeout=self.seconds)

    def _headers(self) -> dict[str, str]:
        if self.token_env is None:
            return {}
        token = os.environ.get(self.token_env)
        if not token:
            raise ConfigError(
                f"the environment variable {self.token_env} is not set",
                got="nothing",
                why=f"it is to hold the token that {self.url} asks for",
                fix=f"export {self.token_env}=..., in the shell that runs this",
            )
        return {"Authorization": f"Bearer {token}"}

    def _turned_away(self, status: int, text: str) -> ContractError:
        token = "no token was sent: set token_env" if self.token_env is None else f"check what {self.token_env} holds"
        fix = token if status in (401, 403) else "check the address, its path included"
        return ContractError(
            "the server turned the request away",
            got=f"status {status} from {self.url}: {_brief(text)}",
            why="every other request would fare alike",
            fix=fix,
        )


def _seconds(retry_after: str | None) -> float:
    """What a server asks to wait, where it says so in seconds."""
    try:
        return max(0.0, float(retry_after or 0.0))
    except ValueError:  # a date
        return 0.0


def _brief(text: str) -> str:
    joined = " ".join(text.split())
    return joined if len(joined) <= 300 else joined[:299] + "…"
