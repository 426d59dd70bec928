"""One trial: a whole training of a student with the values that were drawn, scored on the rows that judge."""

import logging
import math
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distilbert_kd.evaluation import evaluate_logits, predicted
from distilbert_kd.held_out import School
from distilbert_kd.metrics import is_regression_metric
from distilbert_kd.prepared_arguments import training_arguments
from distilbert_kd.recipe import Recipe
from distilbert_kd.recipe_parts import layers_of
from distilbert_kd.report.resampling import bootstrap_scores
from distilbert_kd.scoring import labels_of, predict_logits
from distilbert_kd.training_arguments import shown
from distilbert_kd.tuning.space import FORCED, value_of, with_values


__all__ = ["trial_arguments", "try_out"]

logger = logging.getLogger(__name__)


def trial_arguments(recipe: Recipe, folder: Path, show_bars: bool) -> TrainingArguments:
    """A run's own arguments, but for what it leaves: a trial is scored after each epoch, and nothing is kept.

    Args:
        recipe: of the trial.
        folder: that is there.
        show_bars: whether progress bars are drawn.

    Returns:
        The arguments.

    Raises:
        RecipeError: the Trainer refuses a value.
    """
    strategy = "epoch" if recipe.training.get("load_best_model_at_end") else "no"
    values = {**recipe.training, **FORCED, "save_strategy": strategy}
    return training_arguments(values, "training", folder, recipe.seed, show_bars)


def try_out(
    recipe: Recipe,
    school: School,
    prediction: TrainingArguments,
    folder: Path,
    show_bars: bool,
    trial: Trial,
    values: dict[str, Any],
) -> float:
    """Trains a student and scores it.

    Args:
        recipe: as it was given.
        school: what students learn from, and what judges them.
        prediction: arguments of predictions.
        folder: in which files may lie for a while.
        show_bars: whether progress bars are drawn.
        trial: is told the score of each epoch, and at the end what is known of the student.
        values: in place of the recipe's.

    Returns:
        The score of the task on the held-out rows.

    Raises:
        TrialPruned: the score is in the worst quarter of the trials before it.
        DivergedError: a loss or weight is not finite.
        RecipeError: a value can't be used.
    """
    is_recipe = trial.user_attrs.get("is_recipe", False)
    changed = recipe if is_recipe else with_values(recipe, values)
    told = ", ".join(f"{key}={shown(value)}" for key, value in values.items())
    logger.info("trial %d%s: %s", trial.number, ", the recipe as it is" if is_recipe else "", told)
    trial.set_user_attr("num_epochs", value_of(changed, "training.num_train_epochs"))
    student = school.distil(
        f"trial {trial.number}",
        changed,
        layers_of(changed.student, school.teacher.model, school.origin.model),
        trial_arguments(changed, folder, show_bars),
        folder,
        [_EpochReports(trial, is_prunable=not is_recipe)],
    )
    labels = labels_of(school.judging)
    logits = predict_logits(student.model, student.tokenizer, school.judging, prediction)
    score = evaluate_logits(school.metric, logits, labels).score
    said = {"student": predicted(logits, is_regression_metric(school.metric))}
    standard_error = float(bootstrap_scores(school.metric, said, labels)["student"].std(ddof=1))
    trial.set_user_attr("standard_error", standard_error)
    logger.info("trial %d: score %.1f, standard error %.1f", trial.number, 100 * score, 100 * standard_error)
    return score


class _EpochReports(TrainerCallback):
    """Tells Optuna the score of each epoch, and ends a trial that it gives up."""

    def __init__(self, trial: Trial, is_prunable: bool) -> None:
        self.trial = trial
        self.is_prunable = is_prunable

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        assert metrics is not None, "on_evaluate comes with what was measured"
        epoch = math.ceil(state.epoch or 0.0)
        self.trial.report(metrics["eval_score"], epoch)
        self.trial.set_user_attr("loss", metrics["eval_loss"])
        is_over = state.global_step >= state.max_steps
        if self.is_prunable and not is_over and self.trial.should_prune():
            logger.info("trial %d: ended after epoch %d, in the worst quarter", self.trial.number, epoch)
            raise optuna.TrialPruned
