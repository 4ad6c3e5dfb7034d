"""Rollouts kept to be read."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from assent.protocols import Scoring, State
from assent.stages.lines import lines_of
from assent.train.divergence import Note
from assent.types import Mean, Rollout, Scored

SAMPLES_KEPT = 8
"""Rollouts of a step that are kept to be read."""


class SampleBook:
    """Scoring that also keeps a few rollouts of each step to be read, in a file that follows the saved state.

    Args:
        scoring: of the rollouts.
        path: of the file.
        per_epoch: responses of one pass over the prompts.
        notes: figures of other parts, asked for at each step and logged with the scores.
    """

    def __init__(self, scoring: Scoring, path: Path, *, per_epoch: int, notes: Sequence[Note] = ()) -> None:
        self.scoring, self.path, self.per_epoch, self.notes = scoring, path, per_epoch, list(notes)
        self.step, self.asked, self.episodes = 0, 0, 0
        self.last: dict[str, float] = {}
        path.write_text("", encoding="utf-8")

    def __call__(self, rollouts: Sequence[Rollout]) -> Scored:
        scored = self.scoring(rollouts)
        rewards = scored.score_events_BT.sum(1).tolist()
        stride = max(1, len(scored.rollouts) // SAMPLES_KEPT)
        with self.path.open("a", encoding="utf-8") as file:
            for row in range(0, len(scored.rollouts), stride):
                rollout = scored.rollouts[row]
                said = {n.name: n.scores_B[row].item() for n in scored.scores}
                scores = {name: None if math.isnan(score) else score for name, score in said.items()}
                line = {
                    "step": self.step,
                    "prompt": rollout.prompt.source,
                    "response": rollout.text,
                    "ended": rollout.ended,
                    "scores": scores,
                    "reward": rewards[row],
                }
                file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
        lag = Mean(float(sum(self.step - r.version for r in rollouts)), float(len(rollouts)))
        noted = {name: mean for note in self.notes for name, mean in note(scored).items()}
        self.step += 1
        self.asked += int(noted["sampling/asked"].value) if "sampling/asked" in noted else len(rollouts)
        self.episodes += len(scored.rollouts)
        counts = {
            "episode": Mean(self.episodes, 1),
            "epoch": Mean(self.asked / self.per_epoch, 1),
            "sampler/lag": lag,
        }
        scored = replace(scored, metrics={**scored.metrics, **counts, **noted})
        self.last = {n: m.value for n, m in scored.metrics.items()}
        return scored

    def newest_responses(self, count: int) -> list[str]:
        """Of those kept to be read."""
        lines = lines_of(self.path)[-count:]
        return [json.loads(line)["response"] for line in lines]

    def closing_figures(self) -> dict[str, float]:
        """Of the last batch of rollouts."""
        names = ("objective/kl", "objective/scores", "response/length", "response/ended")
        return {n: self.last[n] for n in names if n in self.last} | {
            n: v for n, v in self.last.items() if n.startswith(("score/", "cost/"))
        }

    def state_dict(self) -> State:
        text = self.path.read_text(encoding="utf-8")
        return {
            "scoring": self.scoring.state_dict(),
            "counts": [self.step, self.asked, self.episodes],
            "text": text,
            "last": dict(self.last),
        }

    def load_state_dict(self, state: State) -> None:
        self.scoring.load_state_dict(state["scoring"])
        self.step, self.asked, self.episodes = state["counts"]
        self.last = state["last"]
        self.path.write_text(state["text"], encoding="utf-8")
