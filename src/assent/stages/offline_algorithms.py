"""The losses of direct alignment that a recipe can name, and those of one's own that it names by path."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from assent.algorithms.apo_down import APODown
from assent.algorithms.apo_zero import APOZero
from assent.algorithms.bco import BCO
from assent.algorithms.cpo import CPO
from assent.algorithms.dpo import DPO
from assent.algorithms.hinge import Hinge
from assent.algorithms.ipo import IPO
from assent.algorithms.kto import KTO
from assent.algorithms.orpo import ORPO
from assent.algorithms.robust_dpo import RobustDPO
from assent.algorithms.simpo import SimPO
from assent.config import suggestion
from assent.stages.own_algorithm import or_own

DEFAULT = DPO()

ALGORITHMS = (DPO, RobustDPO, IPO, Hinge, APOZero, APODown, SimPO, CPO, ORPO, KTO, BCO)
NAMES = tuple(algorithm().name for algorithm in ALGORITHMS)

ASKED = {
    "name": "what it is called",
    "uses_reference": "whether its loss reads the reference's log-probabilities",
    "unpaired": "whether it is told of responses one by one and not in pairs",
    "uses_mismatched": "whether it also reads each prompt with a response to another; False in most",
    "loss": "loss(batch, forward), a batch to a loss per item",
    "implicit_rewards": "implicit_rewards(batch, forward), what it gives each row of a batch",
}


def _named(value: Any) -> Any:
    """Settings without a name are DPO's; a name that nothing has is refused here, with the nearest that there is."""
    if not isinstance(value, dict):
        return value
    name = value.get("name", DEFAULT.name)
    if name not in NAMES:
        raise ValueError(f"there is no algorithm {name!r}; {suggestion(str(name), NAMES)}")
    return {**value, "name": name}


AnyAlignment = Annotated[
    Annotated[
        DPO | RobustDPO | IPO | Hinge | APOZero | APODown | SimPO | CPO | ORPO | KTO | BCO, Field(discriminator="name")
    ],
    BeforeValidator(_named),
    *or_own(ASKED),
]
