"""A critic of the embedded domain: reads a response by one principle, rewrites what offends it, chooses between two.

It stands where a language model will: it overlooks things, sees offence where there is none, likes what is shown first
a little more, and is never quite sure. What it looks for is decided by what the principle is about: `harm` (helping
with what must not be done), `privacy` and `honesty` (stating what no review tells), `manners` (insults); any other word
means all of them.
"""

import math
import random
from dataclasses import dataclass

from assent.data.domain import words as w
from assent.data.domain.cases import read_prompt
from assent.data.domain.claims import REFUSE, UNSAID, Claim, hear, say
from assent.data.domain.judgement import claims_of
from assent.data.domain.safety import UNSAFE_KINDS, judge_harm
from assent.records import PromptText

TOPICS = ("harm", "privacy", "honesty", "manners")


@dataclass(frozen=True, slots=True)
class SimulatedCritic:
    """One reader by principles. The defaults are a good model, not a perfect one.

    Args:
        misses: probability that it overlooks what offends.
        alarms: probability that it has a blameless response declined.
        sharpness: log-odds of a choice per unit of offence.
        position_bias: log-odds that being shown first adds.
        noise: standard deviation of the log-odds.
    """

    misses: float = 0.1
    alarms: float = 0.02
    sharpness: float = 1.5
    position_bias: float = 0.4
    noise: float = 0.5

    def revise(self, prompt: PromptText, response: str, about: str, *, rng: random.Random) -> tuple[str, str]:
        """(critique, revised response); every call draws as often from `rng`.

        Raises:
            DataError: the prompt is not of this domain.
        """
        missed, alarmed = rng.random() < self.misses, rng.random() < self.alarms
        sentences, _ = claims_of(response)
        offending = [s for s in sentences if offends(prompt, s, about)]
        if offending and not missed:
            return f"It should not say: {' '.join(offending)}", rewritten(sentences, offending)
        if alarmed and not offending:
            return "It would be safer to decline.", f" {say(REFUSE)}"
        return "Nothing in it offends this principle.", response

    def first_preferred(self, prompt: PromptText, first: str, second: str, about: str, *, rng: random.Random) -> float:
        """Probability, 0 to 1, that the response shown first is preferred by a principle about this.

        Raises:
            DataError: the prompt is not of this domain.
        """
        gap = offence(prompt, second, about) - offence(prompt, first, about)
        odds = self.sharpness * gap + self.position_bias + self.noise * rng.gauss(0.0, 1.0)
        return 1.0 / (1.0 + math.exp(-odds))


def offence(prompt: PromptText, response: str, about: str) -> float:
    """How much a response offends a principle about this: for harm -1 (declines) to 1 (assists), for the others the
    number of offending sentences; for anything else, all together."""
    sentences, _ = claims_of(response)
    if about not in TOPICS:
        return judge_harm(prompt, response).harm
    if about == "harm":
        return judge_harm(prompt, " ".join(s for s in sentences if s not in w.RUDE)).harm
    return float(sum(offends(prompt, s, about) for s in sentences))


def offends(prompt: PromptText, sentence: str, about: str) -> bool:
    """Whether one sentence offends a principle about this."""
    claim, everything = hear(sentence), about not in TOPICS
    assists = claim is not None and claim.act == "use" and read_prompt(prompt).kind in UNSAFE_KINDS
    exposes = claim is not None and claim.act == "invent"
    rude = sentence in w.RUDE
    found = {"harm": assists, "privacy": exposes, "honesty": exposes, "manners": rude}
    return any(found.values()) if everything else found[about]


def rewritten(sentences: list[str], offending: list[str]) -> str:
    """The sentences with each that offends declined, admitted to be unknown, or left out."""
    made: list[str] = []
    for sentence in sentences:
        claim = hear(sentence)
        better = sentence if sentence not in offending else "" if claim is None else say(_instead_of(claim))
        if better and better not in made:
            made.append(better)
    return " " + (" ".join(made) or say(REFUSE))


def _instead_of(claim: Claim) -> Claim:
    return UNSAID if claim.act == "invent" else REFUSE
