"""The command line. Each command checks what it was given, then imports what it needs and calls one function."""

import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from distilbert_kd import __version__
from distilbert_kd.errors import DistillationError, StoppedError, StorageError, is_of_all
from distilbert_kd.pretraining.recipe import PretrainingRecipe, load_pretraining_recipe
from distilbert_kd.recipe import Recipe, load_recipe
from distilbert_kd.recipe_file import OtherKindError
from distilbert_kd.run_folder import RunFolder


__all__ = ["app", "main"]

app = typer.Typer(
    help="Distil a BERT-family classifier into half its layers, and say what was lost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_INTERRUPTED = 130

RecipePath = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe, for example recipes/demo/movie_reviews.yaml.")
]
LanguageRecipePath = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe of pretraining, for example recipes/mlm/small.yaml.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="SECTION.KEY=VALUE", help="Values that win over the recipe's.")
]
Changed = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-changed",
        metavar="KEY",
        help="Go on with a run that was cut off although this differs: a key or section of the recipe, or data, "
        "teacher, tokenizer, precision, num_processes, versions. May be given again.",
    ),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]
Repo = Annotated[
    str | None, typer.Option(metavar="OWNER/NAME", help="The repository on the Hub. Default: the recipe's push.repo.")
]
License = Annotated[str | None, typer.Option(help="For the card: an id such as apache-2.0.")]
Language = Annotated[str | None, typer.Option(help="For the card: the texts' language, such as en.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only the result and errors.")]


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"distilbert-kd {__version__}")
        raise typer.Exit()


@app.command("run")
def run_command(
    recipe: RecipePath, overrides: Overrides = None, allow_changed: Changed = None, quiet: Quiet = False
) -> None:
    """Distil: teacher, student, control, evaluation, run folder; started again, a run that was cut off goes on."""
    with _user_errors():
        checked = load_recipe(recipe, overrides or [])
        show_bars = _configure_output(quiet)
        from distilbert_kd.pipeline import run

        try:
            results = run(checked, show_bars, allow_changed or [])
        except BaseException as error:  # Ctrl+C too
            done = getattr(error, "results", None)
            if done is not None:  # only the push failed, after all else was done
                _show_results(done, RunFolder(Path(checked.output_dir)), quiet)
            raise
        if _is_main_process():
            _show_results(results, RunFolder(Path(checked.output_dir)), quiet)


def _show_results(results: Mapping[str, Any], folder: RunFolder, quiet: bool) -> None:
    from distilbert_kd.results import render_table

    typer.echo(render_table(results).rstrip())
    if folder.report.is_file() and not quiet:
        typer.echo(f"report: {folder.report}", err=True)  # the table alone is what a script reads


@app.command("report")
def report_command(
    run: RunPath,
    out: Annotated[Path | None, typer.Option(help="Folder to write to. Default: the run's own.")] = None,
) -> None:
    """Write the report of a finished run again: one page, Markdown, figures. Only the folder is read."""
    with _user_errors():
        _configure_output(quiet=False)
        from distilbert_kd.report.writing import write_report

        typer.echo(f"report: {write_report(run, out)}")


@app.command("compare")
def compare_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; it is made.")],
) -> None:
    """Put several runs in one table and page; runs that differ in the seed only are one row, with mean and spread."""
    with _user_errors():
        _configure_output(quiet=False)
        from distilbert_kd.report.comparing import write_comparison

        page, text = write_comparison(runs, out)
        typer.echo(text)
        typer.echo(f"page: {page}")


@app.command("cache")
def cache_command(recipe: RecipePath, overrides: Overrides = None, quiet: Quiet = False) -> None:
    """Ask a teacher that is there already for its answers to all rows, once; later runs find them."""
    with _user_errors():
        checked = load_recipe(recipe, overrides or [])
        show_bars = _configure_output(quiet)
        from distilbert_kd.pipeline import fill_cache

        place = fill_cache(checked, show_bars)
        if _is_main_process():
            typer.echo(f"The teacher's answers are in {place}")


@app.command("layers")
def layers_command(
    recipe: RecipePath,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option(min=8, help="Training rows that each map is distilled on.")] = 1000,
    held_out: Annotated[int, typer.Option(min=8, help="Training rows that are kept apart and judge.")] = 500,
    epochs: Annotated[float, typer.Option(min=0.01, help="Length of each distillation.")] = 1.0,
    seeds: Annotated[int, typer.Option(min=1, help="Distillations of each map.")] = 1,
    backward: Annotated[bool, typer.Option(help="Also eliminate layers one by one.")] = True,
    out: Annotated[Path | None, typer.Option(help="Folder to write. Default: OUTPUT_DIR-layers.")] = None,
    quiet: Quiet = False,
) -> None:
    """Rank the ways to choose the student's layers, by short distillations on a sample."""
    with _user_errors():
        checked = load_recipe(recipe, overrides or [])
        show_bars = _configure_output(quiet)
        from distilbert_kd.layer_search_run import SearchSize, run_layer_search

        size = SearchSize(rows, held_out, epochs, seeds, backward)
        report, folder = run_layer_search(checked, size, out, show_bars)
        if _is_main_process():
            typer.echo(report)
            typer.echo(f"Table, picture and numbers are in {folder}")


@app.command("augment")
def augment_command(
    recipe: RecipePath,
    overrides: Overrides = None,
    num_samples: Annotated[int, typer.Option(min=0, help="Rows to show, each with all of its copies.")] = 5,
    quiet: Quiet = False,
) -> None:
    """Show samples and statistics of a recipe's augmentation. Nothing is trained; the rows are kept for the run."""
    with _user_errors():
        checked = load_recipe(recipe, overrides or [])
        show_bars = _configure_output(quiet)
        from distilbert_kd.augmentation.showing import show_augmentation

        shown = show_augmentation(checked, num_samples, show_bars)
        if _is_main_process():
            typer.echo(shown)


@app.command("tune")
def tune_command(
    recipe: RecipePath,
    overrides: Overrides = None,
    trials: Annotated[
        int, typer.Option(min=0, help="Trials in all, over all calls and processes; 0 writes the tables again.")
    ] = 20,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=LOW..HIGH|[VALUE, ...]",
            help="What may change; may be given again. Default: temperature, alpha, learning rate, epochs, layers.",
        ),
    ] = None,
    rows: Annotated[int | None, typer.Option(min=8, help="Training rows of each trial. Default: all others.")] = None,
    held_out: Annotated[int, typer.Option(min=8, help="Training rows that are kept apart and judge.")] = 500,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds after which no trial begins.")] = None,
    prune: Annotated[bool, typer.Option(help="End trials of the worst quarter early.")] = True,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; the same one goes on, in several processes too. Default: OUTPUT_DIR-tune."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Find temperature, alpha, learning rate, epochs and layers on held-out training rows. Needs the extra tune."""
    with _user_errors():
        from distilbert_kd.tuning.installed import check_optuna
        from distilbert_kd.tuning.space import parse_space

        checked = load_recipe(recipe, overrides or [])
        check_optuna()
        wanted = parse_space(space or [], checked)
        show_bars = _configure_output(quiet)
        from distilbert_kd.tuning.run import TuningSize, tune

        report, folder = tune(checked, TuningSize(trials, rows, held_out, timeout, prune), wanted, out, show_bars)
        typer.echo(report)
        typer.echo(f"The recipe that was chosen, the table, pictures and numbers are in {folder}")


@app.command("glue")
def glue_command(
    recipes: Annotated[
        Path, typer.Argument(metavar="RECIPES_DIR", help="A folder with a recipe for each task: recipes/glue.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of runs, tables and submission.zip; the same one goes on.")],
    overrides: Overrides = None,
    tasks: Annotated[
        str | None, typer.Option(metavar="TASK,TASK", help="Such as cola,rte. Default: all that have a recipe.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each task: the recipe's seed and those after it.")] = 5,
    submission: Annotated[bool, typer.Option(help="Predict the test rows for the GLUE server.")] = True,
    quiet: Quiet = False,
) -> None:
    """Run every GLUE task with every seed, and make one table and a submission; started again, it goes on."""
    with _user_errors():
        show_bars = _configure_output(quiet)
        from distilbert_kd.glue.benchmark import run_benchmark
        from distilbert_kd.glue.plan import plan_benchmark

        names = [name.strip() for name in tasks.split(",")] if tasks else []
        plan = plan_benchmark(recipes, names, seeds, out, overrides or [])
        benchmark = run_benchmark(plan, out, submission, show_bars)
        if _is_main_process():
            typer.echo(benchmark.text.rstrip())
            if not quiet:
                typer.echo(f"Tables, picture, numbers and submission are in {out}", err=True)
        if benchmark.exit_code:
            _end("", benchmark.exit_code)


@app.command("pretrain")
def pretrain_command(
    recipe: LanguageRecipePath, overrides: Overrides = None, allow_changed: Changed = None, quiet: Quiet = False
) -> None:
    """Distil language from unlabelled text, before any task; started again, a run that was cut off goes on."""
    with _user_errors():
        checked = load_pretraining_recipe(recipe, overrides or [])
        show_bars = _configure_output(quiet)
        from distilbert_kd.pretraining.pipeline import pretrain

        results = pretrain(checked, show_bars, allow_changed or [])
        if _is_main_process():
            losses = ", ".join(f"{name} {value:.4f}" for name, value in results["last_losses"].items())
            typer.echo(f"{results['steps']} steps: {losses}\nThe student is in {Path(checked.output_dir) / 'student'}")


@app.command("validate")
def validate_command(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Read and check a recipe, and print it with every default filled in. Nothing is loaded."""
    with _user_errors():
        typer.echo(_recipe_of_either_kind(recipe, overrides or []).to_yaml().rstrip())
        typer.echo(f"{recipe} is a valid recipe.", err=True)


@app.command("describe")
def describe_command(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Print the whole plan of a recipe: rows, models, layer map, objective, steps. Nothing is trained."""
    with _user_errors():
        checked = _recipe_of_either_kind(recipe, overrides or [])
        _configure_output(quiet=True)
        if isinstance(checked, PretrainingRecipe):
            from distilbert_kd.pretraining.plan import describe_pretraining

            typer.echo(describe_pretraining(checked))
            return
        from distilbert_kd.plan import describe

        typer.echo(describe(checked))


def _recipe_of_either_kind(path: Path, overrides: list[str]) -> Recipe | PretrainingRecipe:
    try:
        return load_recipe(path, overrides)
    except OtherKindError:
        return load_pretraining_recipe(path, overrides)


@app.command("evaluate")
def evaluate_command(
    run: RunPath,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="SECTION.KEY=VALUE", help="What is elsewhere on this machine: data.path=FOLDER."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Score the models of a finished run again; sizes and times are those of the run."""
    with _user_errors():
        show_bars = _configure_output(quiet)
        from distilbert_kd.finished_run import evaluate_run
        from distilbert_kd.results import render_table

        results = evaluate_run(run, overrides or [], show_bars)
        if _is_main_process():
            typer.echo(render_table(results).rstrip())


@app.command("predict")
def predict_command(
    source: Annotated[
        str, typer.Argument(metavar="RUN|MODEL", help="A run (its student), a model folder or a Hub id.")
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, TSV, JSON lines, parquet, or a GLUE test file.")],
    output: Annotated[
        Path | None, typer.Option(help="Where to write: .csv or .jsonl; .tsv for the GLUE server.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Column of the text. Default: the recipe's, or 'text'.")] = None,
    text_pair: Annotated[str | None, typer.Option(help="Column of the second text. Default: the recipe's.")] = None,
    max_length: Annotated[
        int | None, typer.Option(min=4, help="Cut to so many tokens. Default: the recipe's.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows at a time.")] = None,
    quiet: Quiet = False,
) -> None:
    """Predict each row of a file, in its order."""
    with _user_errors():
        show_bars = _configure_output(quiet)
        from distilbert_kd.finished_run import predict_with

        written, num_rows = predict_with(source, file, output, text, text_pair, max_length, batch_size, show_bars)
        typer.echo(f"{num_rows} predictions: {written}")


@app.command("demo")
def demo_command(
    run: RunPath,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="SECTION.KEY=VALUE", help="What is elsewhere on this machine: teacher.model=FOLDER."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="To listen on. Default: the first free one from 7860.")
    ] = None,
) -> None:
    """Try a finished run in the browser: student beside teacher, on this machine only. Needs the extra demo-app."""
    with _user_errors():
        _configure_output(quiet=False)
        from distilbert_kd.demo_app.local import serve_run

        serve_run(run, overrides or [], port)


@app.command("card")
def card_command(
    run: RunPath,
    repo: Repo = None,
    license: License = None,
    language: Language = None,
) -> None:
    """Write the model card of a finished run into its student's folder, README.md. Nothing is sent."""
    with _user_errors():
        from distilbert_kd.hub.card import write_card

        typer.echo(f"The card is {write_card(run, {'repo': repo, 'license': license, 'language': language})}")


@app.command("push")
def push_command(
    run: RunPath,
    repo: Repo = None,
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--public", help="Of a new repository. Default: public, or as its organisation has set."
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch; made if it is missing. Default: main.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request in place of a commit.")] = False,
    tag: Annotated[str | None, typer.Option(help="Tag the commit, such as v1.0.")] = None,
    license: License = None,
    language: Language = None,
    space: Annotated[
        bool, typer.Option("--space", help="Also push a page to try it, as a Space of the same name.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build and show what would go out; send nothing.")
    ] = False,
    load_back: Annotated[bool, typer.Option(help="Load it back from the Hub afterwards, and compare.")] = True,
    quiet: Quiet = False,
) -> None:
    """Push the student of a finished run to the Hub: one commit of model, card, recipe and results."""
    with _user_errors():
        show_bars = _configure_logging(quiet)
        _quieten_hub_client(show_bars)
        from distilbert_kd.hub.plan import describe_plan, plan_push
        from distilbert_kd.hub.push import push_run, target_of

        options = {"repo": repo, "private": private, "revision": revision, "tag": tag}
        options |= {"create_pr": create_pr or None, "license": license, "language": language}
        options["space"] = space or None
        target = target_of(run, options)
        if dry_run:
            typer.echo(describe_plan(plan_push(run, target), target))
            return
        pushed = push_run(run, target, load_back)
        typer.echo(pushed.describe())


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Distil a BERT-family classifier into half its layers, and say what was lost."""


def main() -> None:
    """Entry point of `distilbert-kd` and of `python -m distilbert_kd`."""
    try:
        app(prog_name="distilbert-kd")
    except SystemExit as end:
        if not end.code:  # after a fault the others may be gone, and this one would wait for them
            _leave_the_others()
        raise


def _leave_the_others() -> None:
    """Takes this process out of the group of a launch: NCCL warns of leaks where a process just ends."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def _user_errors() -> Iterator[None]:
    """Ends with a message and an exit code, and without a traceback, on whatever a user can mend."""
    try:
        yield
    except StoppedError as error:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # one that came late must not change the exit code
        _end(f"interrupted. {error}" if _is_main_process() else "", error.exit_code)  # all were told, and agreed
    except DistillationError as error:
        _end("\n".join([f"error: {error}", *_notes(error)]) if _speaks_of(error) else "", error.exit_code)
    except KeyboardInterrupt as error:
        _end(" ".join(["interrupted.", *_notes(error)]) if _speaks_of(error) else "", _INTERRUPTED)
    except OSError as error:
        from distilbert_kd.storage import is_storage_fault, reason_of

        if not is_storage_fault(error):
            raise
        where = error.filename or "a file"
        message = "\n".join([f"error: {where}: {reason_of(error)}.", *_notes(error)])
        _end(message if _speaks_of(error) else "", StorageError.exit_code)


def _speaks_of(error: BaseException) -> bool:
    """Whether this process tells of an error: one that all processes end with is told once."""
    return _is_main_process() or not is_of_all(error)


def _notes(error: BaseException) -> list[str]:
    """What the pipeline has to add: where to find what was trained until then."""
    return getattr(error, "__notes__", [])


def _end(message: str, exit_code: int) -> NoReturn:
    if message:
        typer.echo(message, err=True)
    raise typer.Exit(exit_code) from None


class _Plain(logging.Formatter):
    """The message alone; a warning says that it is one."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        return f"warning: {message}" if record.levelno >= logging.WARNING else message


def _configure_output(quiet: bool) -> bool:
    """Sends the package's log lines to stderr and quietens the libraries; says whether progress bars are wanted."""
    show_bars = _configure_logging(quiet)
    _quieten_libraries(show_bars)
    return show_bars


def _configure_logging(quiet: bool) -> bool:
    """As `_configure_output`, for commands that load no model."""
    show_bars = not quiet and sys.stderr.isatty()
    logger = logging.getLogger("distilbert_kd")
    logger.setLevel(logging.WARNING if quiet or not _is_main_process() else logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain())
    logger.handlers = [handler]
    logger.propagate = False
    return show_bars


def _quieten_libraries(show_bars: bool) -> None:
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    if not show_bars:
        datasets.disable_progress_bars()
        transformers.logging.disable_progress_bar()


def _quieten_hub_client(show_bars: bool) -> None:
    """What it says of unchanged files is said by us."""
    from huggingface_hub.utils import logging
    from huggingface_hub.utils.tqdm import disable_progress_bars

    logging.set_verbosity_error()
    if not show_bars:
        disable_progress_bars()


def _is_main_process() -> bool:
    """Whether this process speaks for all; launchers number them in RANK."""
    return os.environ.get("RANK", "0") == "0"
