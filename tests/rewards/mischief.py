"""Functions that a worker must survive; at the top of a module, as users write theirs."""

import contextlib
import math
import os
import time
from pathlib import Path

SAID = "the marker of the test"


def length(rollout):
    return len(rollout.token_ids)


def sleeps(rollout):
    if rollout.text == "slow":
        time.sleep(60)
    return 1.0


def swallows_everything(rollout):
    while rollout.text == "slow":
        with contextlib.suppress(BaseException):
            time.sleep(60)
    return 1.0


def raises(rollout):
    if rollout.text == "bad":
        raise LookupError(SAID)
    return 2.0


def exits(rollout):
    if rollout.text == "bad":
        raise SystemExit(3)
    return 2.0


def dies(rollout):
    if rollout.text == "bad":
        os._exit(7)
    return 3.0


def nonsense(rollout):
    return {"nan": math.nan, "inf": math.inf, "text": "0.5", "list": [1.0], "none": None, "good": 4}[rollout.text]


def prints(rollout):
    print(SAID)
    return 1.0


def once_only(rollout):
    """Fails at the first call for a text, works at the second; the text is a path."""
    mark = Path(rollout.text)
    if not mark.exists():
        mark.write_text("tried")
        raise OSError("first call")
    return 5.0


def counts(rollout):
    """Notes every call in a file, whose path is the prompt."""
    with open(rollout.prompt.source, "a", encoding="utf-8") as file:
        file.write(f"{rollout.text}\n")
    return float(len(rollout.text))


def process(rollout):
    time.sleep(0.2)
    return os.getpid()


def starts_a_child_and_hangs(rollout):
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    Path(rollout.prompt.source).write_text(str(pid))
    time.sleep(60)
