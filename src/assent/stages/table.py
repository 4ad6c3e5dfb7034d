"""What a recipe can do."""

from collections.abc import Mapping

from assent.pipeline.recipe import Stage
from assent.stages import accept, align, compare, critique, evaluate, pretrain, report, reward_model, rl, select, sft

TABLE: Mapping[str, Stage] = {
    module.STAGE.kind: module.STAGE
    for module in (pretrain, sft, compare, critique, reward_model, align, rl, select, evaluate, accept, report)
}
