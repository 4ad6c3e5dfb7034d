"""OpenAssistant's message trees: ranked replies below the message they answer (Köpf et al., arXiv 2304.07327)."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from assent.feedback.answers import PairAnswer, RankingAnswer
from assent.feedback.exchange.given import Beyond, Form, Given, Line
from assent.feedback.exchange.rows import ranked, refuse, text_of
from assent.feedback.into_records import ranks_of
from assent.feedback.store.values import Answered
from assent.records import Message, PromptText

ROLES = {"user": "prompter", "assistant": "assistant"}
BACK: Mapping[str, Any] = {there: here for here, there in ROLES.items()}


def _write(answered: Answered, dimension: str | None) -> Iterator[Line | Beyond]:
    """The dialogue as a chain, with the responses as ranked replies below its end; 0 is the best rank."""
    answer, question = answered.answer, answered.question
    if not isinstance(answer, (PairAnswer, RankingAnswer)):
        yield Beyond(f"{answer.kind} answers rank no replies")
        return
    if isinstance(answer, PairAnswer) and answer.edited is not None:
        yield Beyond("edits of the preferred response")
    turns = (Message("user", question.prompt),) if isinstance(question.prompt, str) else question.prompt
    if any(m.role not in ROLES for m in turns) or turns[-1].role != "user":
        yield Beyond("dialogues with a system prompt or tools, or without a last turn of the user")
        return
    ranks = ranks_of(answered)
    tree = f"{question.id}/{answered.annotator}"
    mine = ranks[dimension or next(iter(ranks))]
    below = [
        {"message_id": f"{tree}/{i}", "role": "assistant", "text": text, "rank": rank - 1, "replies": []}
        for i, (text, rank) in enumerate(zip(question.responses, mine, strict=True))
    ]
    for depth, turn in reversed(list(enumerate(turns))):
        id = f"{tree}/turn-{depth}" if depth else tree
        below = [{"message_id": id, "role": ROLES[turn.role], "text": turn.content, "replies": below}]
    yield {"message_tree_id": tree, "tree_state": "ready_for_export", "prompt": below[0]}


def _read(rows: Iterable[Line]) -> Iterator[Given | Beyond]:
    for row in rows:
        root = row.get("prompt")
        if not isinstance(root, Mapping):
            refuse("a tree has its first message under 'prompt'", row)
        yield from _below(root, ())


def _below(node: Mapping[str, Any], before: tuple[Message, ...]) -> Iterator[Given | Beyond]:
    if node.get("deleted"):
        yield Beyond("branches that begin with a deleted message")
        return
    role = BACK.get(text_of(node, "role"))
    replies = node.get("replies")
    if role is None or not isinstance(replies, list):
        refuse("a message has a role, prompter or assistant, and replies", node)
    so_far = (*before, Message(role, text_of(node, "text")))
    if role == "user" and replies:
        yield from _judged(so_far, replies)
    for reply in replies:
        yield from _below(reply, so_far)


def _judged(turns: tuple[Message, ...], replies: list[Mapping[str, Any]]) -> Iterator[Given | Beyond]:
    alive = [r for r in replies if not r.get("deleted")]
    if len(alive) < 2:
        return  # the dialogue goes on
    held = [r for r in alive if isinstance(r.get("rank"), int)]
    yield from [Beyond("replies without a rank")] * (len(alive) - len(held))
    texts = [text_of(r, "text") for r in held]
    if len(held) < 2 or len(set(texts)) < len(texts):
        yield Beyond("turns with fewer than two ranked replies, or with equal ones")
        return
    prompt: PromptText = turns[0].content if len(turns) == 1 else turns
    made = ranked(prompt, texts, {"overall": [1 + r["rank"] for r in held]})
    yield made if isinstance(made, Beyond) else Given(*made)


OASST_TREES = Form(_write, _read, frozenset())
