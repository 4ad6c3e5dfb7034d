"""The words of the interface, in English and Chinese."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import yaml

LANGUAGES = ("en", "zh")


class Words:
    """The words of one language.

    Raises:
        KeyError: a word that `wording.yaml` does not hold.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._table = _table()

    def __call__(self, key: str, **fields: object) -> str:
        return self._table[key][self.language].format(**fields)

    def of(self, key: str) -> str:
        """The word where there is one, else the key itself: for names that the questions bring along."""
        return self(key) if key in self._table else key


@cache
def _table() -> Mapping[str, Mapping[str, str]]:
    return yaml.safe_load((files(__package__) / "wording.yaml").read_text(encoding="utf-8"))


def preferred(accepted: str) -> str:
    """The first language of an Accept-Language header that the interface speaks; English where there is none."""
    for part in accepted.split(","):
        tag = part.split(";")[0].strip().lower()[:2]
        if tag in LANGUAGES:
            return tag
    return LANGUAGES[0]
