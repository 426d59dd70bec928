"""What a tuning found: the recipe that it chose, a table, pictures and all numbers."""

import json
import logging
import statistics
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna

from distilbert_kd import __version__
from distilbert_kd.recipe import Recipe
from distilbert_kd.results import Table, markdown_table
from distilbert_kd.storage import storage_errors, write_text
from distilbert_kd.training_arguments import shown
from distilbert_kd.tuning.choosing import TriedRecipe, choose
from distilbert_kd.tuning.space import Space, value_of, with_values
from distilbert_kd.tuning.study import tried


__all__ = ["render_trials", "write_findings"]

logger = logging.getLogger(__name__)

#: Keys in the picture of contours: each beside each.
_NUM_CONTOURS = 3


def write_findings(folder: Path, study: optuna.Study, recipe: Recipe, space: Space) -> str:
    """Writes `best.yaml`, `trials.json`, `trials.md` and, with matplotlib, `importances.png` and `contours.png`.

    Args:
        folder: that is there.
        study: its trials.
        recipe: as it was given.
        space: what was changed of it.

    Returns:
        The text of `trials.md`.

    Raises:
        StorageError: a file can't be written.
    """
    trials = tried(study)
    chosen = choose(trials)
    record = {
        **study.user_attrs.get("about", {}),
        "space": {key: values.describe() for key, values in space.items()},
        "chosen": None if chosen is None else chosen.number,
        "trials": [asdict(trial) for trial in trials],
    }
    write_text(folder / "trials.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    text = render_trials(record)
    write_text(folder / "trials.md", text)
    if chosen is not None:
        best = recipe if chosen.is_recipe else with_values(recipe, chosen.values)
        best = best.model_copy(update={"output_dir": f"{recipe.output_dir}-tuned"})
        write_text(folder / "best.yaml", _header(record, recipe, chosen) + best.to_yaml())
    if find_spec("matplotlib") is None:
        logger.info("tune: no pictures, because matplotlib is not installed: pip install matplotlib")
    else:
        _draw(folder, study, [key for key in space if any(key in trial.params for trial in study.trials)])
    return text


def render_trials(record: Mapping[str, Any]) -> str:
    """The trials in Markdown, the best score first, and how one of them was chosen.

    Args:
        record: as `trials.json` holds it.

    Returns:
        The text.
    """
    keys = list(record["space"])
    trials = sorted(record["trials"], key=_rank)
    table = Table(
        f"{record['name']}: {len(trials)} trials",
        ("trial", *(key.split(".", 1)[1] for key in keys), "score", "standard error", "loss", "CPU seconds", "state"),
        tuple(_row(trial, keys, record["chosen"]) for trial in trials),
    )
    notes = "\n".join(f"- {line}" for line in _notes(record))
    return "\n\n".join([f"# {table.title}", markdown_table(table), notes]) + "\n"


def _rank(trial: Mapping[str, Any]) -> tuple[bool, float, int]:
    return trial["state"] != "complete", -(trial["score"] or 0.0), trial["number"]


def _row(trial: Mapping[str, Any], keys: Sequence[str], chosen: int | None) -> tuple[str, ...]:
    marks = ["chosen"] * (trial["number"] == chosen) + ["the recipe"] * trial["is_recipe"]
    return (
        str(trial["number"]),
        *(shown(trial["values"].get(key)).strip('"') for key in keys),
        _percent(trial["score"]),
        _percent(trial["standard_error"]),
        "" if trial["loss"] is None else f"{trial['loss']:.4f}",
        "" if trial["cpu_seconds"] is None else f"{trial['cpu_seconds']:.0f}",
        ", ".join([trial["state"], *marks]),
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _notes(record: Mapping[str, Any]) -> list[str]:
    rows, trials = record["rows"], record["trials"]
    seen = (
        "that neither the teacher nor a student learnt from (the teacher's best epoch was chosen by them)"
        if record["is_teacher_trained_here"]
        else "that no student learnt from; the teacher was there already and may have"
    )
    errors = [f"Trial {trial['number']} failed: {trial['error']}" for trial in trials if trial["error"]]
    seconds = sum(trial["cpu_seconds"] or 0.0 for trial in trials)
    return [
        f"Score: {record['score_name']} in % on {rows['held-out']:,} training rows {seen}. No row of the splits that "
        f"a run reports was looked at. Each student learns from {rows['train']:,} rows, with seed {record['seed']} "
        "alone.",
        _choice(record),
        f"The teacher scores {_percent(record['teacher_score'])} there: {record['teacher']}.",
        "A trial that was pruned was in the worst quarter after an epoch; its score is that of its last epoch. "
        f"{seconds:,.0f} CPU seconds in all trials.",
        *record["caveats"],
        *errors,
    ]


def _choice(record: Mapping[str, Any]) -> str:
    complete = {trial["number"]: trial for trial in record["trials"] if trial["state"] == "complete"}
    if record["chosen"] is None:
        return "No trial is complete, so none is chosen."
    best = max(complete.values(), key=lambda trial: trial["score"])
    chosen = complete[record["chosen"]]
    near = sum(each["score"] >= best["score"] - best["standard_error"] for each in complete.values())
    scores = [each["score"] for each in complete.values()]
    spread = f"; standard deviation over the trials {_percent(statistics.stdev(scores))}" if len(scores) > 1 else ""
    return (
        f"Chosen: trial {chosen['number']}. {near} of {len(complete)} complete trials are within one standard error "
        f"({_percent(best['standard_error'])}) of the best score ({_percent(best['score'])}, trial {best['number']})"
        f"{spread}. Of them the recipe as it was given comes first, then fewer epochs, then the higher score. The "
        "best of many scores is too high by chance: what the choice is worth, only a run on the reported split says."
    )


def _header(record: Mapping[str, Any], recipe: Recipe, chosen: TriedRecipe) -> str:
    changes = [
        f"{key}: {shown(value)}, was {shown(value_of(recipe, key))}"
        for key, value in chosen.values.items()
        if value != value_of(recipe, key)
    ]
    own = next((each["score"] for each in record["trials"] if each["is_recipe"] and each["state"] == "complete"), None)
    told = "" if own is None else f"; the recipe as it was given {_percent(own)}"
    rows = record["rows"]["held-out"]
    text = (
        f"{recipe.name}, tuned by distilbert-kd {__version__} on {record['environment']['date_utc'][:10]}: trial "
        f"{chosen.number} of {len(record['trials'])} (trials.md). "
        f"Score on {rows} held-out training rows {_percent(chosen.score)}, standard error "
        f"{_percent(chosen.standard_error)}{told}. Chosen on these rows, so too high by chance; not measured on the "
        "splits that a run reports."
    )
    lines = [*textwrap.wrap(text, 117), *(changes or ["Nothing is changed but output_dir."])]
    return "".join(f"# {line}\n" for line in lines) + "\n"


def _draw(folder: Path, study: optuna.Study, keys: list[str]) -> None:
    """Importances and contours, by Optuna; where the trials are too few or too alike for them, a line says so."""
    import matplotlib

    matplotlib.use("Agg")  # no window
    from matplotlib import pyplot
    from optuna.importance import get_param_importances
    from optuna.visualization.matplotlib import plot_contour, plot_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the pictures are called experimental, and have layouts of their own
        try:
            importances = get_param_importances(study, params=keys)
        except (RuntimeError, ValueError) as error:
            logger.info("tune: no pictures yet: %s", error)
            return
        pictures: dict[str, Callable[[], Any]] = {
            "importances.png": lambda: plot_param_importances(study, params=keys, target_name="score")
        }
        if len(keys) > 1:
            first = list(importances)[:_NUM_CONTOURS]
            pictures["contours.png"] = lambda: plot_contour(study, params=first, target_name="score")
        for name, plot in pictures.items():
            plot()
            figure = pyplot.gcf()
            if name == "contours.png":
                figure.set_size_inches(10, 8)
            for axis in figure.axes:  # the last part of a key has room
                axis.set(xlabel=axis.get_xlabel().split(".")[-1], ylabel=axis.get_ylabel().split(".")[-1])
                axis.tick_params(axis="x", which="both", labelrotation=45)
                axis.label_outer()
            with storage_errors(folder / name):
                figure.savefig(folder / name, dpi=90, bbox_inches="tight")
            pyplot.close(figure)
