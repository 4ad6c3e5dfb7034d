"""A text classifier as a scorer."""

from typing import Literal

from assent.models.classifier import load_classifier
from assent.models.folders import CausalModel
from assent.pipeline.stage import StageContext
from assent.protocols import Scorer
from assent.rewards.classifier import TEXTS, ClassifierScorer
from assent.stages.parts import ModelRef, model_folder
from assent.stages.placement import placement_of
from assent.stages.scorers.base import Weighted


class ClassifierRef(Weighted):
    """Any text classifier: `{classifier: NAME, label: POSITIVE}`, NAME a folder or a hub name.

    Args:
        label: whose logit is the score, by the name that the model's config gives it; also the name of the score.
        reads: the whole text, prompt and response as one, or the response alone; of a dialogue only the response.
    """

    classifier: ModelRef
    label: str
    reads: Literal["whole", "response"] = "whole"

    def scorer(self, context: StageContext, policy: CausalModel) -> Scorer:
        classifier = load_classifier(model_folder(context, self.classifier), placement=placement_of(context))
        return ClassifierScorer(self.label, classifier.logits_of(self.label), TEXTS[self.reads])
