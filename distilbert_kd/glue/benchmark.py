"""`distilbert-kd glue`: every recipe of a folder with every seed, through the pipeline of `distilbert-kd run`.

Runs lie in `OUT/TASK/seed-SEED`. One that is done is not done again, one that was cut off goes on. The first seed of
all tasks comes first, so that there is a whole table early.
"""

import gc
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import PartialState

from distilbert_kd.data.loading import load_task
from distilbert_kd.errors import DistillationError, StoppedError
from distilbert_kd.glue.plan import is_done
from distilbert_kd.glue.plot import draw_scores
from distilbert_kd.glue.record import Failure, GlueResults
from distilbert_kd.glue.submission import predict_test_rows, write_submission_zip
from distilbert_kd.glue.summary import best_run, summarise
from distilbert_kd.glue.table import latex_text, markdown_text
from distilbert_kd.pipeline import run
from distilbert_kd.prepared_arguments import prediction_arguments
from distilbert_kd.recipe import Recipe
from distilbert_kd.report.pictures import has_matplotlib
from distilbert_kd.report.run_reading import FinishedRun, read_run
from distilbert_kd.storage import storage_errors, write_text
from distilbert_kd.teacher import load_classifier, load_tokenizer


__all__ = ["Benchmark", "run_benchmark"]

logger = logging.getLogger(__name__)

_PROGRAM_FAULT = 1  # exit code


@dataclass
class _Faults:
    """What came to no end, and the exit code that it asks for."""

    failures: list[Failure] = field(default_factory=list)
    exit_code: int = 0

    @contextmanager
    def kept(self, task: str, seed: int) -> Iterator[None]:
        """A fault within it is written down, and the next run may begin.

        With several processes it ends the launch: one process can't know that the others failed as well, and would
        wait for them for ever.
        """
        try:
            yield
        except StoppedError:
            raise
        except Exception as error:
            if PartialState().num_processes > 1:
                error.add_note(f"This was {task}, seed {seed}. What is done is kept; leave the task out with --tasks.")
                raise
            is_program_fault = not isinstance(error, DistillationError)
            text = " ".join([f"{type(error).__name__}:" if is_program_fault else "", *str(error).split()]).strip()
            logger.error("%s, seed %d failed: %s", task, seed, text, exc_info=is_program_fault)
            self.failures.append(Failure(task=task, seed=seed, error=text))
            self.exit_code = self.exit_code or getattr(error, "exit_code", _PROGRAM_FAULT)
        finally:
            gc.collect()


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark came to.

    Attributes:
        results: As in `glue.json`.
        text: Of `glue.md`.
        exit_code: 0, or that of the first fault.
    """

    results: GlueResults
    text: str
    exit_code: int


def run_benchmark(
    plan: dict[str, list[Recipe]], out: Path, is_submission_wanted: bool = True, show_bars: bool = False
) -> Benchmark:
    """Runs what is not done yet, and writes the tables, the figure and the submission. Every process calls this.

    Args:
        plan: see `plan_benchmark`.
        out: the folder; it is made.
        is_submission_wanted: whether the test rows are predicted.
        show_bars: whether progress bars are drawn.

    Returns:
        Results, text and exit code. A run that fails is named there, and doesn't stop the others.

    Raises:
        StoppedError: it was told to stop; the same command goes on.
        StorageError: the folder can't be written.
    """
    faults = _Faults()
    num_seeds = max(map(len, plan.values()))
    for task, recipe in [(task, recipes[place]) for place in range(num_seeds) for task, recipes in plan.items()]:
        with faults.kept(task, recipe.seed):
            if is_done(recipe):
                logger.info("%s, seed %d: done before, in %s", task, recipe.seed, recipe.output_dir)
            else:
                logger.info("%s, seed %d: %s", task, recipe.seed, recipe.output_dir)
                run(recipe, show_bars)
    done = {task: [read_run(Path(each.output_dir)) for each in plan[task] if is_done(each)] for task in plan}
    predictions = {}
    for task in (task for task in done if is_submission_wanted and done[task]):
        best = best_run(done[task])
        recipe = next(each for each in plan[task] if each.seed == best.results["seed"])
        with faults.kept(task, recipe.seed):
            _predict(recipe, best, show_bars)
            predictions[task] = best.folder.predictions
    if not PartialState().is_main_process:
        return Benchmark(GlueResults(tasks=[], means=[], failures=[], submission={}), "", faults.exit_code)
    return _write(out, done, faults, predictions)


def _predict(recipe: Recipe, best: FinishedRun, show_bars: bool) -> None:
    student = load_classifier(str(best.folder.student))
    predict_test_rows(
        student,
        load_tokenizer(str(best.folder.student)),
        str(recipe.data.task),
        load_task(recipe.data, recipe.name).test,
        recipe.data.max_length,
        prediction_arguments(recipe.training, "training", best.folder.root, show_bars),
        best.folder.predictions,
    )


def _write(out: Path, done: dict[str, list[FinishedRun]], faults: _Faults, predictions: dict[str, Path]) -> Benchmark:
    """The files, in place of those of an earlier call."""
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        for name in ("submission.zip", "glue.png"):  # of other runs, they must not stand beside this table
            (out / name).unlink(missing_ok=True)
    submission = write_submission_zip(out / "submission.zip", predictions) if predictions else {}
    tasks, means = summarise(done)
    results = GlueResults(tasks=tasks, means=means, failures=faults.failures, submission=submission)
    if tasks and has_matplotlib():
        with storage_errors(out):
            (out / "glue.png").write_bytes(draw_scores(results).png)
    text = markdown_text(results)
    write_text(out / "glue.json", json.dumps(results.model_dump(), indent=2, ensure_ascii=False) + "\n")
    write_text(out / "glue.tex", latex_text(results))
    write_text(out / "glue.md", text)
    return Benchmark(results, text, faults.exit_code)
