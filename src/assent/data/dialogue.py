"""Dialogues as files write them (lists of messages, `\\n\\nHuman: ...` transcripts) to tuples of `Message`."""

import re
from typing import Any

from assent.errors import DataError
from assent.records import Message, PromptText, Role

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
}
_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


def dialogue(value: Any, column: str) -> tuple[Message, ...]:
    """A list of messages, or a transcript, as messages.

    A message is an object with `role` and `content`, or `from` and `value` (ShareGPT). A transcript begins with
    `\\n\\nHuman:` (Anthropic HH-RLHF); turns are stripped of the space around them.

    Raises:
        DataError: it is neither, a role is unknown, or a content is not text.
    """
    if isinstance(value, str) and (messages := transcript(value)):
        return messages
    if isinstance(value, list) and value:
        return tuple(_message(m, f"{column}[{i}]") for i, m in enumerate(value))
    raise DataError(
        f"the column {column!r} must hold a dialogue",
        got=brief(value),
        why="its turns cannot be told apart",
        fix=r'write [{"role": "user", "content": ...}, ...], or a transcript that begins with "\n\nHuman:"',
    )


def transcript(text: str) -> tuple[Message, ...]:
    """The turns of a `\\n\\nHuman: ... \\n\\nAssistant: ...` text; empty when it is none."""
    starts = list(_TURN.finditer(text))
    if not starts or starts[0].start() or starts[0][1] != "Human":
        return ()
    ends = [m.start() for m in starts[1:]] + [len(text)]
    return tuple(
        Message("user" if m[1] == "Human" else "assistant", text[m.end() : end].strip())
        for m, end in zip(starts, ends, strict=True)
    )


def _message(value: Any, place: str) -> Message:
    if isinstance(value, dict):
        role = value.get("role", value.get("from"))
        content = value.get("content", value.get("value"))
        if role in _ROLES and isinstance(content, str):
            return Message(_ROLES[role], content)
    raise DataError(
        f"the message {place} is not one",
        got=brief(value),
        why="who speaks, or what is said, is not known",
        fix=f"write role (one of {', '.join(_ROLES)}) and content, as text",
    )


def cut_response(messages: tuple[Message, ...], column: str) -> tuple[tuple[Message, ...], str]:
    """The dialogue before its last turn, and that turn, which must be the assistant's.

    Raises:
        DataError: the last turn is somebody else's, or nothing precedes it.
    """
    if len(messages) < 2 or messages[-1].role != "assistant":
        raise DataError(
            f"the dialogue in {column!r} must end with a response of the assistant",
            got=f"turns {', '.join(m.role for m in messages)}",
            why="the response is what is learned, and it answers what stands before it",
            fix="cut the dialogue after the assistant's turn, or leave the row out",
        )
    return messages[:-1], messages[-1].content


def same_prompt(a: tuple[Message, ...], b: tuple[Message, ...], names: tuple[str, str]) -> tuple[Message, ...]:
    """The prompt that two dialogues share.

    Raises:
        DataError: they differ before their last turn.
    """
    if a == b:
        return a
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    sides = [
        f"{name}: {brief(m[at].content) if at < len(m) else 'no turn'}" for name, m in zip(names, (a, b), strict=True)
    ]
    raise DataError(
        "the two dialogues differ before their last turn",
        got=f"turn {at + 1}, {'; '.join(sides)}",
        why="responses to different prompts cannot be compared",
        fix="leave the row out, or cut both at the turn where they part",
    )


def as_dialogue(prompt: PromptText) -> tuple[Message, ...]:
    """A plain prompt as the one turn of a user."""
    return (Message("user", prompt),) if isinstance(prompt, str) else prompt


def brief(value: object) -> str:
    """A value for an error message: on one line, and not longer than one."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:79] + "…"
