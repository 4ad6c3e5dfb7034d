"""The online algorithms that a recipe can name."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from assent.algorithms.grpo import GRPO
from assent.algorithms.ppo import PPO
from assent.algorithms.rloo import RLOO
from assent.config import suggestion

NAMES = (PPO().name, RLOO().name, GRPO().name)


def _named(value: Any) -> Any:
    """Settings without a name are PPO's; a name that nothing has is refused here, with the nearest that there is."""
    if not isinstance(value, dict):
        return value
    name = value.get("name", PPO().name)
    if name not in NAMES:
        raise ValueError(f"there is no algorithm {name!r}; {suggestion(str(name), NAMES)}")
    return {**value, "name": name}


AnyAlgorithm = Annotated[PPO | RLOO | GRPO, Field(discriminator="name"), BeforeValidator(_named)]
