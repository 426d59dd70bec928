"""Serves the page for a finished run, on this machine alone."""

import logging
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilbert_kd.compatibility import label_names
from distilbert_kd.demo_app.page import Classifier, Page, answer_of, launch
from distilbert_kd.errors import DistillationError, RecipeError
from distilbert_kd.finished_run import teacher_of_run, text_columns
from distilbert_kd.metrics import is_regression_metric
from distilbert_kd.recipe import load_recipe
from distilbert_kd.report.content import label_of, said
from distilbert_kd.report.findings import most_different
from distilbert_kd.result_facts import splits_of
from distilbert_kd.run_folder import RunFolder, read_record
from distilbert_kd.scored_rows import read_scored_rows
from distilbert_kd.teacher import load_classifier, load_tokenizer


if TYPE_CHECKING:
    import gradio as gr

__all__ = ["page_of_run", "serve_run", "start"]

logger = logging.getLogger(__name__)

_HOST = "127.0.0.1"
_NUM_ROWS = 30


def serve_run(path: Path, overrides: Sequence[str] = (), port: int | None = None) -> None:
    """Serves the page until it is interrupted. It listens on this machine only.

    Another one is asked only for a teacher that the run took from the Hub as it is, if it isn't in the cache.

    Args:
        path: the folder of a finished run.
        overrides: `section.key=value`, such as where the teacher lies on this machine.
        port: to listen on; None: the first free one from 7860.

    Raises:
        RecipeError: gradio is not installed, an override is wrong, or the port is taken.
        StorageError: it is no finished run.
        TeacherError: the student can't be loaded.
    """
    RunFolder.open(path)  # a wrong folder is no reason to install anything
    if find_spec("gradio") is None:
        raise RecipeError(
            "Expected the package gradio, which makes the page, got none. Install it with the extra demo-app: "
            "pip install 'distilbert-kd[demo-app]', or in a checkout pip install -c constraints.txt -e '.[demo-app]'"
        )
    server = start(page_of_run(path, overrides), port)
    logger.info("The page is at %s (Ctrl-C ends it).", server.local_url)
    server.block_thread()


def start(page: Page, port: int | None = None) -> "gr.Blocks":
    """Starts to listen, on this machine only, and returns.

    Args:
        page: what is shown.
        port: to listen on; None: the first free one from 7860.

    Returns:
        The server.

    Raises:
        RecipeError: the port is taken.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported, and at each start
    options = {"server_name": _HOST, "server_port": port, "share": False, "ssr_mode": False}
    try:
        return launch(page, **options, quiet=True, prevent_thread_lock=True)
    except OSError as error:
        raise RecipeError(
            f"Expected a free port for the page, got: {error} Choose another with --port, or leave it out."
        ) from error


def page_of_run(path: Path, overrides: Sequence[str] = ()) -> Page:
    """Loads the models of a run, and the rows on which they part.

    Args:
        path: the folder of a finished run.
        overrides: `section.key=value`, such as where the teacher lies on this machine.

    Returns:
        The page; without the teacher if that can't be loaded, which the page and a warning say.

    Raises:
        RecipeError: an override is wrong.
        StorageError: it is no finished run.
        TeacherError: the student can't be loaded.
    """
    folder = RunFolder.open(path)
    recipe, results = load_recipe(folder.recipe, overrides), read_record(folder.results)
    student = Classifier(load_classifier(str(folder.student)), load_tokenizer(str(folder.student)))
    labels = None if is_regression_metric(results["metric"]) else tuple(label_names(student.model.config))
    about = [_description(results)]
    teacher = None
    try:
        teacher = Classifier(*teacher_of_run(folder, recipe, labels))
    except DistillationError as error:
        logger.warning("The page shows the student alone. %s", error)
        about.append(f"The student is alone: its teacher could not be loaded. {error}")
    rows, headers = _rows(folder, results)
    if not rows:
        about.append(f"There are no rows to try: {folder.scored} is empty. `distilbert-kd evaluate` writes them.")
    is_pair = text_columns(recipe)[1] is not None
    for each in filter(None, (student, teacher)):
        answer_of(each, ["warm-up"] * (1 + is_pair), recipe.data.max_length)  # or the first text looks slow
    name = results["name"]
    return Page(name, student, teacher, labels, recipe.data.max_length, is_pair, about, rows, headers)


def _description(results: Mapping[str, Any]) -> str:
    temperature = results["distillation"]["temperature"]
    at = "{start:g} to {end:g}".format(**temperature) if isinstance(temperature, Mapping) else f"{temperature:g}"
    layers = [results["models"][name]["num_layers"] for name in ("student", "teacher")]
    how = "" if is_regression_metric(results["metric"]) else f" at T = {at}"
    return f"A student of {layers[0]} layers, distilled{how} from a teacher of {layers[1]}. All runs here, on the CPU."


def _rows(folder: RunFolder, results: Mapping[str, Any]) -> tuple[list[list[str]], list[str]]:
    """The rows of the headline's split on which student and teacher part, the worst first, and their cells' heads."""
    found = read_scored_rows(folder.scored)
    scored = next((found[split] for split in splits_of(results) if split in found), None)
    if scored is None:
        return [], []
    is_regression = scored.label_names is None
    rows = [
        [
            *scored.texts[row],
            label_of(scored, row, is_regression),
            *(said(scored, scored.logits[name][row], is_regression) for name in ("student", "teacher")),
        ]
        for row, _ in most_different(scored.logits, is_regression, _NUM_ROWS)
    ]
    return rows, ["Label", "Student", "Teacher"]
