"""One batch from prompt to gradient passes at most 6 plumbing files."""

import sys
from collections.abc import Sequence
from pathlib import Path

import assent
from assent.algorithms.ppo import PPO
from assent.dist.processes import Alone
from assent.evals import toy_world as toy
from assent.loops.online import online
from assent.rollout.source import PromptSource
from assent.train.guard import KLBudget, KLGuard
from assent.train.learner import LocalLearner
from assent.train.schedule import Schedule
from assent.train.scoring import CriticScoring, KLControl, RolloutScoring, Shaping
from assent.train.weighing import WeightedScorer
from assent.types import Experience, Loss, Prompt, Request, Rollout, Sample, Sampling, Scored, Sequences

MOST = 6
CARRIERS = (Prompt, Request, Sample, Rollout, Scored, Sequences, Experience, Loss)
NOT_PLUMBING = ("functional", "algorithms", "rewards", "types", "protocols.py", "records.py", "evals")
"""Mathematics, judges and carriers; and the toy world in `evals`, which stands for the engine and the models."""


class Quiet:
    def log(self, step, metrics): ...
    def progress(self, done, total): ...
    def restore(self):
        return 0

    def after_step(self, done): ...


def carries(value):
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        value = value[0]
    return isinstance(value, CARRIERS)


def test_a_batch_passes_few_files(tmp_path, capsys):
    """A file is passed when a function of it is handed the batch, in any of its forms, or hands it on."""
    package = str(Path(assent.__file__).parent)
    passed: dict[str, str] = {}

    def watch(frame, event, result):
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(package):
            return
        arguments = [frame.f_locals.get(n) for n in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]]
        if any(carries(v) for v in [*arguments, result]):
            file = code.co_filename[len(package) + 1 :]
            if file.split("/")[0] not in NOT_PLUMBING:
                passed.setdefault(file, code.co_name)

    parts = one_step(tmp_path)
    sys.setprofile(watch)
    try:
        online(*parts)
    finally:
        sys.setprofile(None)
    print("\n".join(f"{file} ({name})" for file, name in passed.items()))
    assert {"rollout/source.py", "train/scoring.py", "train/learner.py"} <= set(passed), "the trace itself is broken"
    assert len(passed) <= MOST, passed


def one_step(tmp_path):
    policy, reference = toy.Tables(2, 3, seed=1), toy.Tables(2, 3, seed=2)
    forward = toy.TableForward(policy)
    source = PromptSource(
        toy.prompts(2),
        toy.TableEngine(policy),
        Sampling(toy.RESPONSE_LENGTH, ()),
        prompts_per_step=2,
        samples_per_prompt=4,
        steps=1,
        seed=0,
        decode=str,
    )
    scorer = WeightedScorer(toy.TableScorer(policy.scores_XVV.detach() + 1.0))
    scoring = RolloutScoring(
        forward.logprobs,
        toy.TableForward(reference).logprobs,
        [scorer],
        shaping=Shaping(),
        kl_control=KLControl(0.1),
        token_budget=8,
    )
    learner = LocalLearner(
        forward,
        {"policy": policy},
        [torch_sgd(policy)],
        schedule=Schedule("constant"),
        total_steps=4,
        token_budget=8,
        seed=0,
        quarantine=tmp_path,
        processes=Alone(),
    )
    critic_scoring = CriticScoring(scoring, forward.values)
    return (
        source,
        critic_scoring,
        PPO(epochs=2, minibatches=2),
        learner,
        Quiet(),
        Quiet(),
        KLGuard(KLBudget(), policy),
    )


def torch_sgd(module):
    import torch

    return torch.optim.SGD(module.parameters(), lr=0.1)
