"""Runs tests against a module with a slip in it, each in a fork of a process that has torch loaded already.

Reads one JSON request a line, `{"module", "source", "path", "tests"}`, and answers with one line: how the tests
ended. A slip counts as caught only by a failed assertion: that it crashes would prove nothing about the checks.
"""

import contextlib
import gc
import io
import json
import os
import sys
from types import ModuleType

import hypothesis.strategies  # noqa: F401
import pytest
import pytest_timeout  # noqa: F401
import torch

# What the tests load and no slip touches: a fork need not load it again. Nothing here may import `assent.algorithms`.
import assent.data.batches
import assent.evals.report_card
import assent.evals.toy_world
import assent.models.folders
import assent.pipeline.run
import assent.rollout.native
import assent.track
import assent.train.scoring  # noqa: F401

# Nobody reads what a failed assertion would explain, and no plugin but the timeout is needed: two thirds of the time.
OPTIONS = [
    "-q",
    "-x",
    "--assert=plain",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:unraisableexception",
    "-p",
    "pytest_timeout",
]


class Verdict:
    """A pytest plugin: whether something failed, and whether it was an assertion that failed."""

    def __init__(self) -> None:
        self.outcome = "survived"

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, call):
        yield
        if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
            self.outcome = "caught" if call.excinfo.errisinstance(AssertionError) else f"crashed: {call.excinfo.value}"


def plant(name: str, source: str, path: str) -> None:
    """Put the module in the place where an import finds it."""
    module = ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module
    exec(compile(source, f"{path} with a slip", "exec"), module.__dict__)


def judged(request: dict) -> str:
    verdict, said = Verdict(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        plant(request["module"], request["source"], request["path"])
        code = pytest.main([*OPTIONS, *request["tests"]], plugins=[verdict])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return f"pytest ended with {code!r}: {said.getvalue()[-2000:]}"
    return verdict.outcome


def serve() -> None:
    torch.set_num_threads(1)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    gc.freeze()
    assert not [name for name in sys.modules if name.startswith("assent.algorithms")], "a slip would not be seen"
    for line in sys.stdin:
        read, write = os.pipe()
        if os.fork() == 0:
            os.close(read)
            try:
                answer = judged(json.loads(line))
            except BaseException as error:
                answer = f"crashed: {error!r}"
            os.write(write, answer.encode()[:4000])
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            print(json.dumps(pipe.read()), flush=True)
        os.wait()


if __name__ == "__main__":
    serve()
