"""Accept a round's policy or roll back: a verdict and a rule in, a decision and the accepted model out."""

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from assent.config import suggestion
from assent.errors import ContractError
from assent.models.folders import save_causal
from assent.pipeline.artefact import Artefact
from assent.pipeline.references import Reference
from assent.pipeline.stage import Number, Stage, StageContext, StageSpec
from assent.stages.parts import MODEL, ModelRef, load_policy, model_folder


class AcceptSpec(StageSpec):
    """Settings of an acceptance.

    The candidate is accepted when every figure of the verdict meets its bound. Either way the next round starts from
    this stage's model; a rejected policy stays in the folder of its own stage.

    Args:
        candidate: the policy that the round made.
        incumbent: the policy accepted so far, which stays when the candidate is rejected.
        verdict: the evaluation that judged the candidate.
        above: closing figures of the verdict to what each must exceed; by default the lower end of the interval of the
            win rate must be above one half, so that luck alone is no progress.
        below: closing figures to what each must stay under, such as {kl: 10}, or {kinds_lost_sampled: 1}: on no kind of
            prompt may the candidate be shown to be worse, which a mean over all kinds hides.
    """

    candidate: ModelRef
    incumbent: ModelRef
    verdict: Annotated[str, Reference()]
    above: dict[str, float] = Field(default_factory=lambda: {"win_sampled_low": 0.5})
    below: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_a_rule(self) -> "AcceptSpec":
        if not self.above and not self.below:
            raise ValueError("without a bound in `above` or `below` everything would be accepted: leave the stage out")
        return self


@dataclass(frozen=True)
class Figure:
    """One closing figure of the verdict beside its bound."""

    name: str
    value: float
    side: Literal["above", "below"]
    bound: float

    @property
    def met(self) -> bool:
        return self.value > self.bound if self.side == "above" else self.value < self.bound

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3f}, to be {self.side} {self.bound:g}"


def run(spec: AcceptSpec, context: StageContext) -> Mapping[str, float]:
    verdict = context.inputs.get(spec.verdict)
    if verdict is None or verdict.config.get("policy") != spec.candidate:
        raise ContractError(
            "the verdict is not on the candidate",
            got=f"a verdict on {verdict.config.get('policy')!r}" if verdict else f"{spec.verdict!r}, no stage",
            why="a policy can only be accepted on its own evaluation",
            fix=f"name an evaluate stage whose policy is {spec.candidate!r}",
        )
    figures = [_figure(verdict, name, "above", bound) for name, bound in spec.above.items()]
    figures += [_figure(verdict, name, "below", bound) for name, bound in spec.below.items()]
    accepted = all(f.met for f in figures)
    chosen = spec.candidate if accepted else spec.incumbent
    _take(chosen, context)
    against = verdict.config.get("baseline")
    outcome = "accepted" if accepted else f"rejected, {spec.incumbent} stays"
    text = f"{spec.candidate} {outcome}: against {against}, {'; '.join(map(str, figures))}."
    decision = {
        "accepted": accepted,
        "chosen": chosen,
        "candidate": spec.candidate,
        "incumbent": spec.incumbent,
        "against": against,
        "figures": [asdict(f) | {"met": f.met} for f in figures],
        "text": text,
    }
    (context.out / "decision.json").write_text(json.dumps(decision, indent=1) + "\n", encoding="utf-8")
    context.say(text)
    return {"accepted": float(accepted)} | {f.name: f.value for f in figures}


def _figure(verdict: Artefact, name: str, side: Literal["above", "below"], bound: float) -> Figure:
    value = verdict.metrics.get(name, math.nan)
    if math.isnan(value):
        raise ContractError(
            f"the verdict {verdict.name!r} has no figure {name!r} to decide by",
            got="no number" if name in verdict.metrics else f"its figures are {', '.join(sorted(verdict.metrics))}",
            why="without it the round can be neither accepted nor rejected",
            fix=suggestion(name, verdict.metrics) if name not in verdict.metrics else "decide by another figure",
        )
    return Figure(name, value, side, bound)


def _take(chosen: str, context: StageContext) -> None:
    """The chosen model's folder as this artefact's own, by hard links where the file system has them: no copy."""
    folder, out = Path(model_folder(context, chosen)), context.out / MODEL
    if not folder.is_dir():
        save_causal(out, load_policy(context, chosen))
        return
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(folder, out, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def derive(spec: AcceptSpec) -> Mapping[str, Number]:
    above = {f"{name}, above": bound for name, bound in spec.above.items()}
    return above | {f"{name}, below": bound for name, bound in spec.below.items()}


STAGE = Stage("accept", AcceptSpec, run, derive)
