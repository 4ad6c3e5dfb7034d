"""What a recipe can do."""

from collections.abc import Mapping

from assent.pipeline.stage import Stage
from assent.stages import (
    accept,
    align,
    compare,
    critique,
    demonstrate,
    evaluate,
    label_steps,
    pretrain,
    process_reward,
    report,
    reward_average,
    reward_ensemble,
    reward_model,
    rl,
    select,
    sft,
)

STAGES = (
    *(pretrain, demonstrate, sft, compare, critique, reward_model, reward_ensemble, reward_average),
    *(label_steps, process_reward, align, rl, select, evaluate, accept, report),
)

TABLE: Mapping[str, Stage] = {module.STAGE.kind: module.STAGE for module in STAGES}
