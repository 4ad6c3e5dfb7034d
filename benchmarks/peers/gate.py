"""A worker that does one piece of work when told to, and says what it took. Standard library alone."""

import json
import os
import resource
import sys
import time


class Gate:
    """Waits for `go` on standard input; answers with seconds, losses and peak memory on standard output.

    What libraries print goes to standard error, so that standard output carries answers alone.
    """

    def __init__(self) -> None:
        self.answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.started = (0.0, 0.0)
        self.before_mb = 0.0
        self.losses: list[float] = []
        self.slots = 0
        self.useful = 0
        """Distinct tokens that the work had to read: a prompt once for all its responses, no padding."""
        self.lengths: list[int] = []

    def watch(self, model) -> None:
        """Count the slots, padding included, that go through the model's trunk."""

        def count(_, arguments, named) -> None:
            ids = named.get("input_ids", arguments[0] if arguments else None)
            self.slots += 0 if ids is None else ids.numel()

        model.base_model.register_forward_pre_hook(count, with_kwargs=True)

    def wait(self) -> None:
        """Until told to go; ends the process when told to end."""
        order = sys.stdin.readline().strip()
        if order != "go":
            os._exit(0)
        # Of libraries and models, before any work: what a process peaks at beyond it is what the work itself takes.
        self.before_mb = self.before_mb or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.losses, self.slots, self.useful, self.lengths = [], 0, 0, []
        self.started = (time.perf_counter(), time.process_time())

    def done(self, units: float, **more: float) -> None:
        """Answer for `units` of work since the last `wait`."""
        wall, cpu = time.perf_counter() - self.started[0], time.process_time() - self.started[1]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        answer = {"units": units, "wall": wall, "cpu": cpu, "losses": self.losses, "peak_mb": peak}
        answer["before_mb"] = self.before_mb
        answer |= {"slots": self.slots} if self.slots else {}
        answer |= {"useful": self.useful} if self.useful else {}
        answer |= {"length": sum(self.lengths) / len(self.lengths)} if self.lengths else {}
        answer |= more
        self.answers.write(json.dumps(answer) + "\n")
        self.answers.flush()
