"""What a report holds. Anything left empty leaves its section out."""

from dataclasses import dataclass
from typing import Any

from assent.evals.charts import Series
from assent.evals.length_control import LengthControlled
from assent.evals.overoptimisation import Overoptimisation
from assent.evals.plain import from_json, to_json
from assent.evals.report_card import ReportCard
from assent.evals.win_rate import KindRow, Verdict, WinRate


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure for the head of the page or of a stage, already written for a reader.

    Args:
        name: what it is, such as "KL spent".
        value: the figure with its unit, such as "3.3 nats".
        note: a few words under it, such as the interval; may be empty.
    """

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class StageRow:
    """One artefact of the lineage.

    Args:
        parents: ids of the artefacts it was made from.
        seconds: wall time it took; None when unknown.
        facts: its key metrics.
        reused: it existed already and was not made again in this run.
    """

    name: str
    id: str
    parents: tuple[str, ...]
    seconds: float | None
    facts: tuple[Fact, ...] = ()
    code_version: str = ""
    reused: bool = False


@dataclass(frozen=True, slots=True)
class CurvePanel:
    """One small chart of one stage.

    Args:
        stage: panels of a stage stand together, in the order given.
        title: the metric in plain words.
        unit: of y, such as "nats per sequence"; empty for a pure number.
        meaning: one line on how to read it.
        healthy: the range one wants to be in, from the metric catalogue.
    """

    stage: str
    title: str
    unit: str
    series: tuple[Series, ...]
    x_label: str = "step"
    meaning: str = ""
    healthy: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Contest:
    """One comparison of two policies by one judge.

    Args:
        name: such as "PPO against SFT, both sampled".
        judge: who scored.
        length_controlled: the same with the pull of length taken out, where it was computed.
    """

    name: str
    judge: str
    result: WinRate
    length_controlled: LengthControlled | None = None


@dataclass(frozen=True, slots=True)
class KindTable:
    """Results per kind of prompt."""

    title: str
    policy: str
    baseline: str
    rows: tuple[KindRow, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt and both responses.

    Args:
        before_score, after_score: by `Report.sample_judge`; None where there is none.
        why: how it came to be shown: "drawn at random", "largest gain", "largest loss".
    """

    prompt: str
    before: str
    after: str
    before_score: float | None = None
    after_score: float | None = None
    kind: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class NamedCurve:
    """Proxy and gold over KL of one run, such as "KL coefficient 0.05" beside "KL coefficient 0"."""

    name: str
    curve: Overoptimisation


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the page shows, in the order it is shown.

    Args:
        title: the name of the run.
        verdict: what the evaluation shows, first thing on the page.
        created: date and time, as the caller writes it.
        code_version: of Assent.
        summary: a paragraph on what was done; may be empty.
        facts: four to eight figures under the verdict.
        samples: see `choose_samples`.
        sample_notes: what a reader of the samples should know.
        before, after: what the two responses are called, such as "SFT" and "PPO".
        sample_judge: whose scores the samples carry.
        card_of: the stage whose card it is; a run may have several reward models.
        chat: commands that talk to the result.
        settings: the resolved recipe, as YAML.
        limits: what this run does not show; said, not hidden.
    """

    title: str
    verdict: Verdict
    created: str = ""
    code_version: str = ""
    summary: str = ""
    facts: tuple[Fact, ...] = ()
    contests: tuple[Contest, ...] = ()
    kinds: tuple[KindTable, ...] = ()
    samples: tuple[Sample, ...] = ()
    sample_notes: tuple[str, ...] = ()
    before: str = "SFT"
    after: str = "PPO"
    sample_judge: str = "gold"
    overoptimisation: tuple[NamedCurve, ...] = ()
    card_of: str = ""
    card: ReportCard | None = None
    curves: tuple[CurvePanel, ...] = ()
    lineage: tuple[StageRow, ...] = ()
    chat: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    settings: str = ""

    def to_json(self) -> dict[str, Any]:
        return to_json(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Report":
        return from_json(cls, data)
