"""The command `assent`. Nothing heavy is imported until a verb needs it, so that `--help` answers at once.

Exit status: 0 done, 1 refused or failed, 2 a recipe, an override or the command line is wrong, 130 stopped with Ctrl-C.
"""

import contextlib
import gc
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from assent.errors import AssentError, ConfigError

if TYPE_CHECKING:
    from assent.pipeline.recipe import Recipe
    from assent.pipeline.stage import Stage

app = typer.Typer(
    name="assent",
    help="Train language models from human feedback: one recipe, from text to a judged model.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, such as recipes/quickstart.yaml.")]
Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Parameters (data=PATH) and overrides (stages.sft.epochs=3)."),
]


def main() -> None:
    """Entry point. Files of the user's own, named by path in a recipe, are found in the current folder."""
    sys.path.append(os.getcwd())
    app()


@app.command()
def run(
    recipe: RecipeFile,
    settings: Settings = None,
    folder: Annotated[Path | None, typer.Option(help="Where it is kept; runs/NAME by default.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Run this stage alone; may be given again.")] = None,
    until: Annotated[str | None, typer.Option(help="Run up to and including this stage.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard's event files.")] = False,
) -> None:
    """Run a recipe. What is finished is skipped, what was interrupted continues."""
    with _told():
        if os.environ.get("RANK", "0") == "0":
            typer.echo(f"{recipe}: loading torch and transformers")
        loaded, table = _load(recipe, settings)
        from assent import stages
        from assent.pipeline.run import run as run_pipeline

        where = folder or Path("runs") / loaded.name
        console, ranks = stages.console(tensorboard=tensorboard), None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            ranks = stages.ranks()
            console = console if ranks.rank == 0 else stages.quiet_console()
        console.say(f"models run on {stages.place_of(loaded.device, loaded.precision)}")
        made = run_pipeline(loaded, table, where, only=only or None, until=until, console=console, ranks=ranks)
        for page in [p for artefact in made.values() for p in artefact.folder.glob("*.html")]:
            console.say(f"The report: {page}")
        console.say(f"The run is in {where}; talk to its result with: assent chat {where}")


@app.command()
def explain(recipe: RecipeFile, settings: Settings = None) -> None:
    """Print the resolved recipe and what follows from it: device, prompts, sequences, tokens, updates."""
    with _told():
        loaded, table = _load(recipe, settings)
        from assent import stages

        typer.echo(loaded.to_yaml())
        try:
            typer.echo(f"models would run on {stages.place_of(loaded.device, loaded.precision)}\n")
        except ConfigError as error:
            typer.echo(f"it would not run on this machine: {error}\n")
        for name, spec in loaded.stages.items():
            parents = ", ".join(loaded.parents[name])
            typer.echo(f"{name}: {loaded.kinds[name]}" + (f" from {parents}" if parents else ""))
            typer.echo(f"    seed  {loaded.seed_of(name)}")
            for what, number in table[loaded.kinds[name]].derive(spec).items():
                typer.echo(f"    {what}  {number:,}")


@app.command()
def chat(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    stage: Annotated[str | None, typer.Option(help="Whose model; the last stage that made one by default.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Answer this and end.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Talk to the model of a run."""
    with _told("Goodbye."):
        with _quick_imports():
            from assent import stages
        stages.chat(run, stage, prompt, device=device)


@app.command()
def verify() -> None:
    """Train every algorithm where the optimum is known and show how near it comes."""
    with _told():
        with _quick_imports():
            from assent import stages
        verdicts = list(stages.verify())
        typer.echo(f"{'algorithm':<20} {'at the start':>12} {'at the end':>12} {'allowed':>9}  {'verdict':<8} optimum")
        for v in verdicts:
            numbers = f"{v.start:>12.4f} {v.distance:>12.4f} {v.tolerance:>9.4f}"
            typer.echo(f"{v.algorithm:<20} {numbers}  {'arrived' if v.arrived else 'FAILED':<8} {v.optimum}")
        if not verdicts or not all(v.arrived for v in verdicts):
            raise typer.Exit(1)


rewards = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(rewards, name="reward")


@rewards.callback()
def reward() -> None:
    """Look at a reward before a policy is trained on it."""


@rewards.command("test")
def reward_test(
    what: Annotated[str, typer.Argument(metavar="REWARD", help="A recipe, or a reward as YAML or in a file.")],
    cases: Annotated[Path | None, typer.Option(help="Responses whose worth is known: .jsonl or a YAML list.")] = None,
    stage: Annotated[str | None, typer.Option(help="Of a recipe, whose rewards; the last rl stage by default.")] = None,
    run: Annotated[Path | None, typer.Option(help="The folder of a run, where a recipe's reward models are.")] = None,
    policy: Annotated[str | None, typer.Option(help="Whose tokens responses are made of: a folder or name.")] = None,
) -> None:
    """Score responses whose worth is known, and texts that a policy would try. Status 1 where a verdict is FAIL."""
    with _told():
        from assent.stages.reward_test import reward_test as findings_of

        passed = True
        for found in findings_of(what, cases=cases, stage=stage, run=run, policy=policy, say=typer.echo):
            passed = passed and found.passed
            typer.echo(f"{found.reward}" + (f" ({found.remark})" if found.remark else ""))
            typer.echo(f"  {'response':<28} {'score':>10}  {'expected':<28} verdict")
            for row in found.rows:
                score = "none" if row.score is None else f"{row.score:.4f}"
                verdict = ("pass" if row.passed else "FAIL") + (f": {row.remark}" if row.remark else "")
                typer.echo(f"  {row.case:<28.28} {score:>10}  {row.expected:<28.28} {verdict}")
        if not passed:
            raise typer.Exit(1)


class _ServesByDefault(typer.core.TyperGroup):
    """`assent label STORE` and `assent arena A B` serve; only the other words are commands."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        named = args[:1] and args[0] in self.commands
        return super().resolve_command(ctx, args if named else ["serve", *args])


labels = typer.Typer(cls=_ServesByDefault, no_args_is_help=True, rich_markup_mode=None)
app.add_typer(labels, name="label")
StorePlace = Annotated[
    str, typer.Argument(metavar="RUN_OR_STORE", help="The folder of a run, a store's file, or postgresql://...")
]


Proxies = Annotated[
    list[str] | None,
    typer.Option(
        "--behind-proxy",
        metavar="ADDRESS",
        help="Address or network of a proxy whose X-Forwarded-For and -Proto are believed; may be given again.",
    ),
]


@labels.callback()
def label() -> None:
    """Ask people. `assent label RUN_OR_STORE` serves the page on which they answer."""


@labels.command("serve")
def label_serve(
    store: StorePlace,
    host: Annotated[str, typer.Option(help="The interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8321,
    tokens: Annotated[bool, typer.Option("--tokens", help="Only the links of invitations sign in.")] = False,
    behind_proxy: Proxies = None,
    gold_every: Annotated[int, typer.Option(help="One showing in about this many is a gold one; 0 for none.")] = 20,
) -> None:
    """Serve the page until Ctrl-C; `serve` may be left out."""
    with _told("Closed. Every answer that was given is in the store."):
        from assent.feedback.page.serve import open_store, serve

        opened, proxies = open_store(store, gold_every=gold_every), behind_proxy or []
        serve(opened, host=host, port=port, tokens=tokens, proxies=proxies, say=typer.echo)


@labels.command("invite")
def label_invite(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who is invited.")],
    store: StorePlace,
    address: Annotated[str, typer.Option(help="Where the page will be served.")] = "http://127.0.0.1:8321",
) -> None:
    """Print a link that signs NAME in; whoever has it answers in that name."""
    with _told():
        from assent.feedback.page.serve import invite, open_store

        typer.echo(invite(open_store(store), name, address))


@labels.command("judge")
def label_judge(
    store: StorePlace,
    judge: Annotated[str, typer.Argument(metavar="JUDGE", help="A judge as YAML or in a file, as `compare` takes it.")],
    batch: Annotated[str | None, typer.Option(help="Only the questions of this batch.")] = None,
) -> None:
    """Have a model answer the pairs and rankings of a store, beside the people; its prompt and settings are kept."""
    with _told("Stopped. What was answered is in the store; the same command goes on from here."):
        from assent.feedback.page.serve import open_store
        from assent.stages.judge_store import judge_store, read_judge

        done = judge_store(open_store(store), read_judge(judge), batch=batch, say=typer.echo)
        typer.echo(f"{done.annotator}: {done.answers:,} answers, {done.known:,} were there before")
        for reason, n in done.left_out.items():
            typer.echo(f"  left out {n:,}: {reason}")


Form = Annotated[
    str,
    typer.Option(
        "--format",
        help="assent, hh_rlhf, ultrafeedback, trl_preference, trl_unpaired, label_studio, argilla, oasst_trees or csv.",
    ),
]


@labels.command("export")
def label_export(
    store: StorePlace,
    out: Annotated[Path, typer.Option(help="The file to write.")],
    form: Form = "assent",
    batch: Annotated[str | None, typer.Option(help="Only the answers to this batch of questions.")] = None,
    dimension: Annotated[str | None, typer.Option(help="Whose choices, where the form has room for one.")] = None,
) -> None:
    """Write the answers that stand in a form of another tool, and say what the form had no room for."""
    with _told():
        from assent.feedback.exchange.files import export_file
        from assent.feedback.page.serve import open_store

        export_file(open_store(store), out, form, batch=batch, dimension=dimension, say=typer.echo)


@labels.command("import")
def label_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What another tool, or Assent, wrote.")],
    form: Form,
    store: Annotated[str, typer.Option(help="Where to: a store's file, made when absent, or a URL.")] = "feedback.db",
    batch: Annotated[
        str | None, typer.Option(help="What its questions are called; the file's name by default.")
    ] = None,
    annotator: Annotated[str, typer.Option(help="Who answered, where the file does not tell.")] = "imported",
) -> None:
    """Read questions and answers into a store; nobody is asked them again. The same file again adds nothing."""
    with _told():
        from assent.feedback.exchange.files import import_file

        import_file(file, store, form, batch=batch, annotator=annotator, say=typer.echo)


arenas = typer.Typer(cls=_ServesByDefault, no_args_is_help=True, rich_markup_mode=None)
app.add_typer(arenas, name="arena")


@arenas.callback()
def arena() -> None:
    """Talk to two models side by side, unnamed, and vote. `assent arena A B` serves the page."""


@arenas.command("serve")
def arena_serve(
    policies: Annotated[
        list[str],
        typer.Argument(metavar="A B...", help="RUN, RUN:STAGE, a model's folder or hub name; two or more."),
    ],
    store: Annotated[str, typer.Option(help="Where votes go: a run's folder, a file, postgresql://...")] = "arena.db",
    max_new_tokens: Annotated[int | None, typer.Option(help="Length of an answer, else as the stage sampled.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    host: Annotated[str, typer.Option(help="The interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8321,
    tokens: Annotated[bool, typer.Option("--tokens", help="Only the links of invitations sign in.")] = False,
    behind_proxy: Proxies = None,
) -> None:
    """Serve the page until Ctrl-C; `serve` may be left out. Who answers is drawn anew for every turn."""
    with _told("Closed. Every vote that was given is in the store."):
        from assent.feedback.page.serve import check_address, check_proxies, open_store, serve

        proxies = behind_proxy or []
        check_address(host, tokens=tokens)
        check_proxies(proxies, tokens=tokens)
        from assent.stages.arena import policies_of

        talking = policies_of(policies, max_new_tokens=max_new_tokens, device=device)
        for policy in talking:
            typer.echo(f"{policy.id[:12]} is {policy.name}")
        opened = open_store(store, new=True)
        serve(opened, host=host, port=port, tokens=tokens, proxies=proxies, say=typer.echo, policies=talking)


@arenas.command("ratings")
def arena_ratings(store: StorePlace = "arena.db") -> None:
    """Print how strong each model is by the votes: Bradley-Terry on the scale of Elo, with 95 % intervals."""
    with _told():
        from assent.feedback.arena import BATCH
        from assent.feedback.page.serve import open_store
        from assent.feedback.strengths import ratings, votes_of

        rated = ratings(votes_of(open_store(store).answers(batch=BATCH, kind="pair")))
        wide = max(24, *(len(r.name) for r in rated))
        typer.echo(f"{'policy':<{wide}} {'rating':>7}  {'interval':>15} {'votes':>6} {'wins':>6} {'ties':>6}")
        for r in rated:
            interval = f"[{r.interval.low:.0f}, {r.interval.high:.0f}]" if r.interval else "one dialogue"
            typer.echo(f"{r.name:<{wide}} {r.rating:>7.0f}  {interval:>15} {r.votes:>6} {r.wins:>6} {r.ties:>6}")


@app.command()
def why(
    a: Annotated[Path, typer.Argument(metavar="A", help="The folder of an artefact.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The folder of another.")],
) -> None:
    """Say why two artefacts differ: settings, parents, inputs, seed, code."""
    with _told():
        from assent.pipeline.artefact import differences, load
        from assent.pipeline.artefact import why as reasons_of

        one, other = load(a, verify=False), load(b, verify=False)
        reasons = reasons_of(one, other)
        typer.echo("\n".join(reasons) if reasons else f"They are the same artefact, {one.id[:8]}.")
        for line in differences(one.environment, other.environment):
            typer.echo(f"environment {line} (not part of what tells artefacts apart)")


def _load(recipe: Path, settings: list[str] | None) -> "tuple[Recipe, Mapping[str, Stage]]":
    with _quick_imports():
        from assent import stages
        from assent.pipeline.recipe import load_recipe
    return load_recipe(recipe, stages.TABLE, settings or ()), stages.TABLE


@contextlib.contextmanager
def _quick_imports() -> Iterator[None]:
    """Import without collecting garbage. Torch and transformers make some hundred thousand objects that stay; to look
    through them again and again takes a fifth of the time. Afterwards every collection leaves them out."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def _told(stopped: str = "") -> Iterator[None]:
    """Tell of errors made on purpose, and of Ctrl-C, in words and without a traceback."""
    try:
        yield
    except AssentError as error:
        typer.echo(f"\nassent: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from None
    except KeyboardInterrupt:
        again = "Stopped. Nothing finished is lost; the same command continues from here."
        typer.echo(f"\n{stopped or again}", err=True)
        raise typer.Exit(130) from None
