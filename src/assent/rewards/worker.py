"""The child of `rewards.workers`: gets a function once, then one rollout after another, and answers with a number.

Run as `python -m assent.rewards.worker FD`, FD being its end of a pair of sockets. It is a program of its own, so that
nothing of the parent's (its main module, its threads, its locks) comes along.
"""

import importlib
import math
import numbers
import os
import pickle
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection

LOOKS_FOR_PARENT_SECONDS = 1.0


def main(fd: int) -> None:
    """Serve until the parent closes its end or is gone."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    connection = Connection(fd)
    function, paths = connection.recv()
    sys.path[:] = paths
    try:
        importlib.import_module("assent.types")  # what a rollout needs, before the clock of the first one runs
        function = pickle.loads(function)
    except BaseException:
        connection.send(("broken", traceback.format_exc()))
        return
    connection.send(("ready", None))
    while True:
        try:
            rollout = connection.recv()
        except EOFError:
            return
        connection.send(_answer(function, rollout))


def _answer(function, rollout) -> tuple[str, object]:  # type: ignore[no-untyped-def]
    """(what became of it, the number or words about it); only plain values go back."""
    try:
        said = function(rollout)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "raised", traceback.format_exc()
    if said is None:
        return "declined", None
    if not isinstance(said, numbers.Real):
        return "not_a_number", f"it returned {type(said).__name__}: {said!r:.200}"
    number = float(said)
    return ("value", number) if math.isfinite(number) else ("not_finite", f"it returned {number}")


def _end_with(parent: int) -> None:
    """A function that hangs must not outlive a parent that was killed."""
    while os.getppid() == parent:
        time.sleep(LOOKS_FOR_PARENT_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
