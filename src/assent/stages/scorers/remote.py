"""A reward model behind an address as a scorer: `{remote: URL}`."""

from urllib.parse import urlsplit

from pydantic import Field, field_validator

from assent.config import Frozen
from assent.models.folders import CausalModel
from assent.pipeline.stage import StageContext
from assent.protocols import Scorer
from assent.rewards.asked import AskedScorer
from assent.rewards.http import Server
from assent.rewards.memory import NoMemory, RecentMemory, digest
from assent.rewards.remote import RemoteRewards
from assent.stages.scorers.base import Weighted


class ServerSettings(Frozen):
    """How a server is asked.

    Args:
        token_env: name of the environment variable that holds its bearer token; a recipe never holds the token.
        seconds: longest that one try may take.
        retries: further tries where nobody answers, or with "too many requests" or an error of its own.
        at_once: requests under way together.
    """

    token_env: str | None = None
    seconds: float = Field(60.0, gt=0)
    retries: int = Field(4, ge=0)
    at_once: int = Field(4, gt=0)

    def server(self, url: str) -> Server:
        return Server(url, self.token_env, self.seconds, self.retries)


class RemoteRef(Weighted):
    """A reward model over HTTP: `{remote: "http://localhost:8000/score"}`; see `rewards.remote` for the protocol.

    Args:
        name: of the score in metrics.
        batch: responses of one request.
        server: how it is asked.
        remember: do not ask again about a response that had a score.
    """

    remote: str
    name: str = "remote"
    batch: int = Field(64, gt=0)
    server: ServerSettings = ServerSettings()
    remember: bool = True

    @field_validator("remote")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        return address(url)

    @property
    def label(self) -> str:
        return self.name

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        ask = RemoteRewards(self.server.server(self.remote), self.batch, self.server.at_once)
        memory = RecentMemory() if self.remember else NoMemory()
        return AskedScorer(self.label, ask, source=digest("remote", self.remote), memory=memory, say=context.say)


def address(url: str) -> str:
    """The address of a server.

    Raises:
        ValueError: it is none, or holds a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address; write http://HOST:PORT/PATH or https://...")
    if parts.username or parts.password:
        raise ValueError("an address with a password in it would be kept in every artefact; use token_env")
    return url
