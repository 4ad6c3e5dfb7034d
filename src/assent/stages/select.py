"""Best of n: sample K responses to each prompt, score them, keep the best as demonstrations.

With supervised fine-tuning on what was kept this is rejection-sampling fine-tuning (RAFT, Dong et al. 2023, arXiv
2304.06767; Llama 2, 2307.09288, section 3.2.3) or, with a threshold, expert iteration (Anthony et al. 2017, 1705.08439;
ReST-EM, Singh et al. 2023, 2312.06585). What is kept is always decided prompt by prompt. A share of the highest scores
over all prompts together, as LMFlow offers under the name "top", is not: it keeps the prompts that are easy, or that
the reward model happens to like.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, Protocol, Self

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from assent.config import Frozen
from assent.errors import ContractError
from assent.evals.overoptimisation import best_of_n_points
from assent.evals.plain import to_json
from assent.functional.selection import best_of_n_kl
from assent.loops.select import select
from assent.pipeline.stage import Number, Stage, StageContext, StageSpec
from assent.protocols import Stateful
from assent.rollout.source import PromptSource
from assent.stages.generation import decoder, engine_of
from assent.stages.heard import Logged
from assent.stages.lines import Lines, lines_of
from assent.stages.parts import Generation, ModelRef, answerable, load_policy
from assent.stages.scorers import RawScore, named_apart
from assent.stages.sources import SELECTED, AnyTasks, take
from assent.train.checkpoint import StateFile
from assent.types import Rollout, ScoreEvents

GROUPS = "groups.jsonl"


class Best(Frozen):
    """The best response to each prompt: `{rule: best}` (RAFT and Llama 2)."""

    rule: Literal["best"] = "best"

    def kept(self, scores: Mapping[int, float]) -> list[int]:
        return [max(scores, key=lambda i: scores[i])] if scores else []


class Above(Frozen):
    """Every different response that scores at least `least`: `{rule: above, least: 1.0}` (expert iteration).

    Args:
        least: a correct answer's score where the reward is verifiable.
        most: of one prompt, the best first; 10 in ReST-EM, so that easy prompts do not fill the data.
    """

    rule: Literal["above"]
    least: float
    most: int = Field(10, gt=0)

    def kept(self, scores: Mapping[int, float]) -> list[int]:
        enough = sorted((i for i in scores if scores[i] >= self.least), key=lambda i: -scores[i])
        return enough[: self.most]


class Rule(Protocol):
    """What is kept of one prompt's responses."""

    def kept(self, scores: Mapping[int, float]) -> list[int]:
        """Indices of those kept, best first, among the responses that may be: index to score."""
        ...


def _named(value: Any) -> Any:
    """A rule without a name is the first."""
    return {"rule": "best", **value} if isinstance(value, dict) else value


AnyRule = Annotated[Best | Above, Field(discriminator="rule"), BeforeValidator(_named)]


class SelectSpec(StageSpec):
    """Settings of a selection.

    A response that was cut off at its length limit or has no score is never kept: it would teach to stop anywhere.

    Args:
        policy: whose responses are chosen from.
        tasks: the prompts.
        longest_prompt: in tokens; prompts that are longer or leave no room for a response are left out and counted.
        samples: K responses per prompt; 8 in RAFT, 10 to 100 in Llama 2.
        scorer: whose scores choose.
        watch: scored and reported, never chosen by: a held-out reward model, or the domain's gold.
        keep: what is kept of each prompt's responses.
        generation: how responses are drawn; Llama 2 tunes the temperature anew in every round.
        prompts_per_step: prompts between two looks at the clock.
        checkpoint_seconds: longest work that a kill may cost.
    """

    policy: ModelRef
    tasks: AnyTasks
    longest_prompt: int = Field(512, gt=0)
    samples: int = Field(8, ge=2)
    scorer: RawScore
    watch: tuple[RawScore, ...] = ()
    keep: AnyRule = Best()
    generation: Generation
    prompts_per_step: int = Field(128, gt=0)
    checkpoint_seconds: float = Field(20.0, ge=0)

    @model_validator(mode="after")
    def _scorers_are_told_apart(self) -> Self:
        named_apart([self.scorer, *self.watch])
        return self


@dataclass(frozen=True)
class Group:
    """The K responses to one prompt, all that is known of them; one line of `groups.jsonl`.

    Args:
        scores: of each scorer by its label, the chooser's first; None is "no score".
        lengths: in tokens, end token included.
        kept: indices of the responses kept, best first.
    """

    id: str
    prompt: object
    kind: str
    responses: list[str]
    ended: list[bool]
    lengths: list[int]
    scores: dict[str, list[float | None]]
    kept: list[int]

    @property
    def chosen_by(self) -> list[float | None]:
        return next(iter(self.scores.values()))

    @property
    def repeats(self) -> int:
        """Responses that say what an earlier one of the group says."""
        return len(self.responses) - len(set(self.responses))

    @property
    def says_nothing(self) -> bool:
        """Whether all scores are one: the choice is then a draw."""
        return len(set(self.chosen_by)) == 1


class Chooser:
    """Turns the samples of a step into groups with what is kept of them."""

    def __init__(self, rule: Rule, labels: Sequence[str], samples: int) -> None:
        self.rule, self.labels, self.samples = rule, labels, samples

    def __call__(self, rollouts: Sequence[Rollout], scores: Sequence[Sequence[ScoreEvents]]) -> list[dict[str, object]]:
        starts = range(0, len(rollouts), self.samples)
        return [
            asdict(self._group(rollouts[i : i + self.samples], [s[i : i + self.samples] for s in scores]))
            for i in starts
        ]

    def _group(self, rollouts: Sequence[Rollout], scores: Sequence[Sequence[ScoreEvents]]) -> Group:
        totals = [[sum(e.value for e in events) if events else None for events in of_one] for of_one in scores]
        texts = [r.text for r in rollouts]
        may_be_kept = {
            i: score
            for i, (rollout, score) in enumerate(zip(rollouts, totals[0], strict=True))
            if rollout.ended and score is not None and texts.index(texts[i]) == i
        }
        prompt = rollouts[0].prompt
        return Group(
            prompt.id,
            prompt.source if isinstance(prompt.source, str) else [asdict(m) for m in prompt.source],
            prompt.kind,
            texts,
            [r.ended for r in rollouts],
            [len(r.token_ids) for r in rollouts],
            dict(zip(self.labels, totals, strict=True)),
            self.rule.kept(may_be_kept),
        )


def run(spec: SelectSpec, context: StageContext) -> Mapping[str, float]:
    causal = load_policy(context, spec.policy)
    prompts = answerable(causal, take(spec.tasks, context), spec.longest_prompt, spec.generation, context)
    per_step = min(spec.prompts_per_step, len(prompts))
    source = PromptSource(
        prompts,
        engine_of(causal, slots=spec.generation.slots),
        spec.generation.sampling(causal.tokenizer),
        prompts_per_step=per_step,
        samples_per_prompt=spec.samples,
        steps=len(prompts) // per_step,
        seed=context.seed,
        decode=decoder(causal, spec.generation.stop_strings),
    )
    scorers = [s.scorer(context, causal) for s in (spec.scorer, *spec.watch)]
    lines = Lines(context.out / GROUPS, Chooser(spec.keep, [s.name for s in scorers], spec.samples))
    logged = Logged(lines, scorers, context.tracker, prompts_per_step=per_step)
    parts: dict[str, Stateful] = {"source": source, "lines": logged, "tracker": context.tracker}
    checkpoint = StateFile(context.state, parts, every_seconds=spec.checkpoint_seconds)
    select(source, logged.asked, logged, context.tracker, checkpoint)
    left = len(prompts) % per_step
    if left:
        context.say(f"{left} of {len(prompts):,} prompts were not asked: prompts go out {per_step} at a time")
    groups = [Group(**json.loads(line)) for line in lines_of(lines.path)]
    _write_demonstrations(groups, context)
    curves = best_of_n_curves(groups)
    (context.out / "best_of_n.json").write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")
    figures = closing_figures(groups)
    _say(figures, context)
    return figures


def _write_demonstrations(groups: Sequence[Group], context: StageContext) -> None:
    """What was kept, with its score among its group's."""
    with (context.out / SELECTED).open("w", encoding="utf-8") as file:
        for group in groups:
            known = [s for s in group.chosen_by if s is not None]
            about = {
                "id": group.id,
                "kind": group.kind,
                "n": len(group.responses),
                "mean": float(np.mean(known)) if known else None,
                "std": float(np.std(known)) if known else None,
                "low": min(known, default=None),
                "high": max(known, default=None),
            }
            for i in group.kept:
                row = {"prompt": group.prompt, "response": group.responses[i], "score": group.chosen_by[i], **about}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def best_of_n_curves(groups: Sequence[Group]) -> dict[str, list[dict[str, Any]]]:
    """Of each scorer, what the best of n by the chooser earns, for n = 1, 2, 4, ... up to K: unbiased, with KL.

    Only prompts all of whose responses have every score; empty lists when there is none.
    """
    whole = [g for g in groups if all(s is not None for scores in g.scores.values() for s in scores)]
    samples = len(groups[0].responses)
    ns = [2**i for i in range(int(math.log2(samples)) + 1)]
    ns += [samples] if ns[-1] != samples else []
    if not whole:
        return {label: [] for label in groups[0].scores}
    scores = {label: np.array([g.scores[label] for g in whole], dtype=float) for label in groups[0].scores}
    proxy = next(iter(scores.values()))
    return {label: [to_json(p) for p in best_of_n_points(proxy, gold, ns)] for label, gold in scores.items()}


def closing_figures(groups: Sequence[Group]) -> dict[str, float]:
    """What was kept and what was lost.

    Raises:
        ContractError: nothing was kept.
    """
    kept = [(g, i) for g in groups for i in g.kept]
    if not kept:
        raise ContractError(
            "nothing was kept",
            got=f"{len(groups):,} prompts, none with a response that came to its end and scores enough",
            why="there is nothing to learn from",
            fix="lower keep.least, raise samples or generation.max_new_tokens, or run the scorer on a few responses",
        )
    samples = len(groups[0].responses)
    scored = [s for g in groups for s in g.chosen_by if s is not None]
    figures = {
        "prompts": len(groups),
        "demonstrations": len(kept),
        "prompts_without": sum(not g.kept for g in groups),
        "prompts_all_equal": sum(g.says_nothing for g in groups),
        "samples": samples * len(groups),
        "repeats": sum(g.repeats for g in groups),
        "unended": sum(g.ended.count(False) for g in groups),
        "unscored": samples * len(groups) - len(scored),
        "kl_best_of_n": best_of_n_kl(samples),
        "length_mean": float(np.mean([g.lengths for g in groups])),
        "length_kept": float(np.mean([g.lengths[i] for g, i in kept])),
    }
    for label in groups[0].scores:
        of_all = [s for g in groups for s in g.scores[label] if s is not None]
        of_kept = [s for g, i in kept if (s := g.scores[label][i]) is not None]
        figures[f"{label}_mean"] = float(np.mean(of_all)) if of_all else math.nan
        figures[f"{label}_kept"] = float(np.mean(of_kept)) if of_kept else math.nan
    return {name: float(x) for name, x in figures.items()}


def _say(figures: Mapping[str, float], context: StageContext) -> None:
    count = {k: f"{int(v):,}" for k, v in figures.items() if float(v).is_integer()}
    context.say(
        f"kept {count['demonstrations']} responses to {count['prompts']} prompts; {count['prompts_without']} prompts "
        f"have none, of {count['prompts_all_equal']} all scores are equal; of {count['samples']} samples "
        f"{count['repeats']} repeat another, {count['unended']} were cut off, {count['unscored']} have no score"
    )


def derive(spec: SelectSpec) -> Mapping[str, Number]:
    count = getattr(spec.tasks, "count", None)
    figures: dict[str, Number] = {"KL of best of n, at most": round(best_of_n_kl(spec.samples), 3)}
    return figures if count is None else {"prompts": count, "responses": count * spec.samples, **figures}


STAGE = Stage("select", SelectSpec, run, derive)
