"""`assent arena`: models of runs behind the page on which people talk to two of them and vote."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from assent.feedback.arena import Policy, Reply
from assent.models.folders import CausalModel, load_causal
from assent.models.placement import Placement
from assent.records import PromptText, Task
from assent.stages.chat import BUDGET, generation_of, in_room, model_of
from assent.stages.generation import sample_responses
from assent.stages.parts import MODEL, Generation
from assent.stages.placement import resolve


@dataclass(frozen=True)
class FolderPolicy:
    """Implements `Policy`: a language model that answers as its stage sampled."""

    id: str
    name: str
    causal: CausalModel
    generation: Generation

    @property
    def talks(self) -> bool:
        return bool(self.causal.tokenizer.chat_template)

    def reply(self, prompt: PromptText) -> Reply:
        task = Task("arena", prompt)
        generation = in_room(self.causal, task, self.generation)
        (rollout,) = sample_responses(self.causal, [task], generation, seed=secrets.randbits(31))
        return Reply(rollout.text.strip(), rollout.ended)


def policies_of(places: Sequence[str], *, max_new_tokens: int | None = None, device: str = "auto") -> list[Policy]:
    """The models at these places: RUN (its last model), RUN:STAGE, or a Hugging Face folder or hub name.

    Args:
        max_new_tokens: length of an answer; as the stage sampled when None.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ArtefactError: a run has no such model.
    """
    placement = resolve(device, "float32")
    return [_policy(place, max_new_tokens, placement) for place in places]


def _policy(place: str, max_new_tokens: int | None, placement: Placement) -> FolderPolicy:
    run, _, stage = place.partition(":")
    if (Path(run) / "run.json").exists():
        artefact = model_of(Path(run), stage or None)
        id, name, generation = artefact.id, f"{artefact.name} of {run}", generation_of(artefact)
        causal = load_causal(artefact.folder / MODEL, placement=placement)
    else:
        id, name, generation = place, place, Generation(max_new_tokens=BUDGET)
        causal = load_causal(place, placement=placement)
    if max_new_tokens is not None:
        generation = generation.model_copy(update={"max_new_tokens": max_new_tokens})
    return FolderPolicy(id, name, causal, generation)
