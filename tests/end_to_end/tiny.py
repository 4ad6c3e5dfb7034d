"""A recipe of seconds, and running it in a process that can be killed."""

import contextlib
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

TINY = """
name: tiny
seed: 3
stages:
  base:
    do: pretrain
    data: {format: domain_documents, count: 120}
    shape:
      family: llama
      kwargs: {hidden_size: 32, intermediate_size: 48, num_hidden_layers: 1, num_attention_heads: 2,
               num_key_value_heads: 2, max_position_embeddings: 192, tie_word_embeddings: true}
    vocabulary: 400
    length: 64
    batch_size: 8
    optimization: &fast
      optimizer: {name: muon, lr: 0.02, rest: {lr: 0.01}}
      checkpoint_seconds: 0
    skip_checks: [D11]
  sft:
    do: sft
    model: base
    data: {format: domain_demonstrations, count: 96}
    epochs: 3
    batch_size: 12
    optimization: *fast
    skip_checks: [D11]
  comparisons:
    do: compare
    policy: sft
    tasks: {format: domain_tasks, count: 96}
    samples: 3
    annotators: {panel: simulated}
    generation: {max_new_tokens: 12}
    checkpoint_seconds: 0
  reward:
    do: reward_model
    model: sft
    data: [{format: stage, stage: comparisons}]
    epochs: 2
    batch_size: 8
    held_out: 0.2
    optimization: *fast
    skip_checks: [D11]
  ppo:
    do: rl
    policy: sft
    rewards: [{reward_model: reward}]
    watch: [{gold: domain}]
    tasks: {format: domain_tasks, count: 40}
    steps: 20
    prompts_per_step: 12
    generation: {max_new_tokens: 12}
    algorithm: {epochs: 2, minibatches: 2}
    shaping: {normalise: true, missing_end_penalty: 1.0}
    kl: {coefficient: 0.1, target: 1.0, horizon: 200}
    budget: {limit: 1000.0}
    mix: {demonstrations: {format: domain_demonstrations, count: 20}, coefficient: 0.5, batch_size: 4}
    optimization:
      optimizer: {name: adamw, lr: 0.001}
      checkpoint_seconds: 0
    skip_checks: [D11]
  verdict:
    do: evaluate
    policy: ppo
    baseline: sft
    tasks: {format: domain_tasks, count: 24, split: held_out}
    judge: {gold: domain}
    proxy: {reward_model: reward}
    generation: {max_new_tokens: 12}
    best_of: 2
  report:
    do: report
    of: [base, sft, comparisons, reward, ppo, verdict]
"""


class QuietConsole:
    """Writes metrics as a run does and shows nothing."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextlib.contextmanager
    def stage(self, title: str, out: Path, board: Path) -> Iterator:
        from assent.track.jsonl import METRICS, TIMING, JsonlSink, TimingFile
        from assent.track.tracker import RunTracker

        tracker = RunTracker([JsonlSink(out / METRICS)], TimingFile(out / TIMING))
        try:
            yield tracker
        finally:
            tracker.close()


def run_tiny(folder: Path, *overrides: str, only: str | None = None, until: str | None = None, text: str = TINY):
    """Run the recipe, or some of it, in this process."""
    import torch

    from assent.pipeline.recipe import parse_recipe
    from assent.pipeline.run import run
    from assent.stages import TABLE

    torch.set_num_threads(1)
    console = QuietConsole()
    recipe = parse_recipe(text, TABLE, overrides)
    return run(recipe, TABLE, folder, only=[only] if only else None, until=until, console=console), console


def start_tiny(folder: Path, only: str) -> multiprocessing.process.BaseProcess:
    """The same in a process of its own, which inherits what is imported and can be killed."""
    process = multiprocessing.get_context("fork").Process(target=run_tiny, args=(folder,), kwargs={"only": only})
    process.start()
    return process
