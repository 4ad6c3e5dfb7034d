"""Questions to ask in tests: one of each kind, hostile, right-to-left and Chinese ones, and many pairs."""

import re

from assent.feedback.questions import (
    HELPFUL_HARMLESS_HONEST,
    DemonstrationQuestion,
    EditQuestion,
    Origin,
    PairQuestion,
    RankingQuestion,
    RatingQuestion,
    StepsQuestion,
)
from assent.records import Message

HOSTILE = (
    "<script>window.broken = 1</script><img src=x onerror='window.broken = 2'>"
    "[click](javascript:window.broken=3) ![p](http://198.51.100.7/p.png) </textarea><b>bold</b> \u202egnp.exe"
)
PAIR = PairQuestion("pair", "Which animal?", ("A **cat**.", "A dog."), origin=Origin(why="The ensemble disagrees."))
MANY_SIDED = PairQuestion("sides", "Be good.", ("Yes.", "No."), dimensions=HELPFUL_HARMLESS_HONEST)
RANKING = RankingQuestion("ranking", "Say a number.", ("one", "two", "three", "four"))
RATING = RatingQuestion("rating", "Write a poem.", ("Roses are red.",))
STEPS = StepsQuestion("steps", "1 + 1 + 1?", ("1 + 1 = 2.\n", "2 + 1 = 4.\n", "So 4."))
EDIT = EditQuestion("edit", "Greet me.", ("helo there",))
DEMONSTRATION = DemonstrationQuestion("demonstration", (Message("system", "Be brief."), Message("user", "你好吗？")))
KINDS = [PAIR, MANY_SIDED, RANKING, RATING, STEPS, EDIT, DEMONSTRATION]
MANY = [PairQuestion(f"p{i}", f"Prompt {i}", (f"left {i}", f"right {i}")) for i in range(12)]


def field(html: str, name: str) -> str:
    """The value of the first hidden field of that name."""
    found = re.search(rf'name="{name}" value="([^"]*)"', html)
    assert found, f"no field {name} in {html[:400]}"
    return found[1]


def sign_in(client, name: str) -> str:
    """Sign in by name; the first page that is then shown."""
    page = client.get("/")
    page = client.post("/sign-in", data={"csrf": field(page.text, "csrf"), "name": name})
    assert page.status_code == 200, page.text
    return page.text
