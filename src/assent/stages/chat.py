"""`assent chat`: talk to any model of a run."""

from pathlib import Path

from rich.console import Console

from assent.errors import ArtefactError
from assent.models.folders import CausalModel, load_causal
from assent.pipeline.artefact import Artefact
from assent.pipeline.run import read_run
from assent.records import Message, PromptText, Task
from assent.stages.generation import sample_responses
from assent.stages.parts import MODEL, Generation, positions_of, prompt_of, talks
from assent.stages.placement import resolve

BUDGET = 128
"""Tokens of an answer where the stage does not say."""


def chat(run: Path, stage: str | None = None, prompt: str | None = None, *, device: str = "auto") -> None:
    """Answer one prompt, or talk until the end of the input.

    Args:
        run: folder of a run.
        stage: whose model; the last stage that made one by default.
        prompt: answer this and return.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ArtefactError: the run has no such model.
    """
    artefact = model_of(run, stage)
    causal = load_causal(artefact.folder / MODEL, placement=resolve(device, "float32"))
    generation = generation_of(artefact)
    console = Console()
    if prompt is not None:
        asked: PromptText = (Message("user", prompt),) if causal.tokenizer.chat_template else prompt
        console.print(answer(causal, asked, generation, seed=0), markup=False, highlight=False)
        return
    console.print(f"Talking to {artefact.name} ({artefact.id[:8]}). An empty line or Ctrl-D ends.", markup=False)
    dialogue: list[Message] = []
    turn = 0
    while text := _ask(console):
        source: PromptText = text
        if causal.tokenizer.chat_template:
            dialogue.append(Message("user", text))
            source = tuple(dialogue)
        said = answer(causal, source, generation, seed=turn)
        dialogue.append(Message("assistant", said))
        console.print(said, markup=False, highlight=False)
        turn += 1


def answer(causal: CausalModel, prompt: PromptText, generation: Generation, *, seed: int) -> str:
    """One sampled answer, without special tokens or the space that opens it; shorter where the model has less room."""
    task = Task("chat", prompt)
    (rollout,) = sample_responses(causal, [task], in_room(causal, task, generation), seed=seed)
    return rollout.text.strip()


def in_room(causal: CausalModel, task: Task, generation: Generation) -> Generation:
    """The budget cut to the room that the prompt leaves the model."""
    positions = positions_of(causal.model)
    if positions is None:
        return generation
    room = positions - len(prompt_of(causal, task).token_ids)
    return generation.model_copy(update={"max_new_tokens": max(1, min(room, generation.max_new_tokens))})


def _ask(console: Console) -> str:
    try:
        # A line is one prompt; "\n" written out stands for a line break, which some prompts need.
        return console.input("> ").strip().replace("\\n", "\n")
    except EOFError:
        return ""


def model_of(run: Path, stage: str | None) -> Artefact:
    """The artefact of a stage that made a language model; of the last one by default.

    Raises:
        ArtefactError: the run has none, or not this one.
    """
    talkers = {name: a for name, a in read_run(run).items() if talks(a)}
    if not talkers or (stage is not None and stage not in talkers):
        raise ArtefactError(
            "there is no such model to talk to",
            got=f"stage {stage!r} of {run}" if stage else str(run),
            why="only a finished stage that made a language model can answer",
            fix=f"choose one of: {', '.join(talkers)}" if talkers else "run a recipe first: assent run RECIPE",
        )
    return talkers[stage] if stage is not None else list(talkers.values())[-1]


def generation_of(artefact: Artefact) -> Generation:
    """How the stage sampled, where it did."""
    config = artefact.config.get("generation")
    return Generation(**config) if config else Generation(max_new_tokens=BUDGET)
