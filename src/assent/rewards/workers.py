"""Functions that nobody vouches for, each call in a process of its own: it may hang, crash or talk nonsense."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import cast

from assent.errors import ConfigError, ContractError
from assent.rewards.asked import Failure
from assent.types import Rollout

START_SECONDS = 120.0
"""Longest that a worker may take to start and import the function: it loads torch, beside all others."""


@dataclass(slots=True)
class _Worker:
    """A process and what it is busy with."""

    process: subprocess.Popen
    connection: Connection
    deadline: float
    job: int | None = None
    ready: bool = False


_Job = tuple[int, int]
"""Index of a rollout, and how often it was tried before."""


class Workers:
    """Calls a function of a rollout in `count` processes; every call ends.

    The order of the answers is that of the rollouts, whoever is done first. A process that overruns its time is killed
    and another one started; so is one that dies.

    Args:
        function: importable by its module and name, or a value that pickles.
        count: processes, at least 1; started when first needed.
        seconds: longest that one call may take.
        retries: further calls after one that raised, hung or died; what it returned is never asked for again.

    Raises:
        ConfigError: the function does not pickle.
    """

    def __init__(self, function: Callable[[Rollout], object], *, count: int, seconds: float, retries: int) -> None:
        self.count, self.seconds, self.retries = count, seconds, retries
        self._function = _pickled(function)
        self._workers: list[_Worker] = []
        self._stop = weakref.finalize(self, _stop_all, self._workers)

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | Failure]:
        """One number or failure per rollout, in order.

        Raises:
            ContractError: the function cannot be loaded in a worker.
        """
        waiting: deque[_Job] = deque((i, 0) for i in range(len(rollouts)))
        tried: dict[int, int] = {}
        answers: dict[int, float | Failure] = {}
        while len(answers) < len(rollouts):
            self._hand_out(rollouts, waiting, tried)
            for job, answer in self._collect():
                again = isinstance(answer, Failure) and answer.reason in ("raised", "timeout", "died")
                if again and tried[job] < self.retries:
                    waiting.append((job, tried[job] + 1))
                else:
                    answers[job] = answer
        return [answers[i] for i in range(len(rollouts))]

    def close(self) -> None:
        """End the processes; the next call starts others."""
        _stop_all(self._workers)

    def _hand_out(self, rollouts: Sequence[Rollout], waiting: deque[_Job], tried: dict[int, int]) -> None:
        idle = [w for w in self._workers if w.ready and w.job is None]
        starting = sum(not w.ready for w in self._workers)
        for _ in range(min(self.count - len(self._workers), len(waiting) - len(idle) - starting)):
            self._workers.append(_start(self._function))
        for worker in idle:
            if not waiting:
                return
            worker.job, before = waiting.popleft()
            tried[worker.job] = before
            worker.deadline = time.monotonic() + self.seconds
            try:
                worker.connection.send(rollouts[worker.job])
            except OSError:
                worker.deadline = 0.0  # it died while idle; the closed connection tells `_collect`

    def _collect(self) -> list[tuple[int, float | Failure]]:
        """Wait for something to happen; what became of the jobs that ended by it."""
        busy = [w for w in self._workers if w.job is not None or not w.ready]
        left = min(w.deadline for w in busy) - time.monotonic()
        heard = wait([w.connection for w in busy], timeout=max(0.0, left))
        ended = []
        for worker in busy:
            if worker.connection in heard:
                answer = self._hear(worker)
            elif time.monotonic() >= worker.deadline:
                self._dismiss(worker)
                allowed = self.seconds if worker.ready else START_SECONDS
                answer = Failure("timeout", f"no answer within {allowed:g} s; the process was killed")
            else:
                continue
            if worker.job is not None and answer is not None:
                ended.append((worker.job, answer))
            elif worker.job is None and isinstance(answer, Failure):
                raise _unloadable(answer)
            worker.job = None
        return ended

    def _hear(self, worker: _Worker) -> float | Failure | None:
        """The message of one worker; None for its greeting."""
        try:
            kind, said = worker.connection.recv()
        except (EOFError, OSError):
            self._dismiss(worker)
            return Failure("died", f"its process ended with status {worker.process.returncode}")
        if kind == "ready":
            worker.ready = True
            return None
        return cast(float, said) if kind == "value" else Failure(kind, str(said or ""))

    def _dismiss(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        _stop_all([worker])


def _pickled(function: Callable[[Rollout], object]) -> bytes:
    try:
        return pickle.dumps(function)
    except Exception as error:
        raise ConfigError(
            "the function cannot be sent to a worker process",
            got=f"{function!r}: {error}",
            why="a worker imports it by its module and name",
            fix="define it at the top of a module, not inside another function or as a lambda",
        ) from error


def _start(function: bytes) -> _Worker:
    """A process that has been told what it will be asked; it says when it is ready."""
    mine, its = Pipe()
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join([package, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with its:
        process = subprocess.Popen(
            [sys.executable, "-m", "assent.rewards.worker", str(its.fileno())],
            pass_fds=(its.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=sys.__stderr__,  # what a function prints must not mix with what the command prints
            start_new_session=True,  # Ctrl-C is the parent's to answer, and what a function starts dies with it
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        )
    mine.send((function, [p or os.getcwd() for p in sys.path]))
    return _Worker(process, mine, time.monotonic() + START_SECONDS)


def _stop_all(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
    workers.clear()


def _unloadable(failure: Failure) -> ContractError:
    return ContractError(
        "a worker process could not load the function",
        got=failure.detail.strip() or failure.reason,
        why="no response can be scored",
        fix="import its module in a fresh interpreter, from the folder you run from, and mend what that shows",
    )
