"""The study: trials in an SQLite file, which as many processes as were started take one after the other.

Which trial comes next is decided under the folder's lock, so that N trials are N however many processes there are. A
process that works on a trial holds a lock of the trial's own; a trial that is under way without one belonged to a
process that was killed, and is tried again.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from distilbert_kd.errors import DivergedError, RecipeError, StorageError
from distilbert_kd.resuming import differences
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.run_lock import is_locked, lock
from distilbert_kd.tuning.choosing import TriedRecipe
from distilbert_kd.tuning.space import Choices, Space


__all__ = ["STUDY", "open_study", "run_next", "take_identity", "tried"]

logger = logging.getLogger(__name__)

STUDY = "study.db"

#: Seconds that a process waits for another one that writes.
_SQLITE_TIMEOUT = 120

#: Trials that are drawn at random, the recipe's own among them, before TPE learns from them.
_NUM_RANDOM = 5

#: What is pruned: the worst quarter after an epoch, not before the second one, and only where so many complete trials
#: came by. Not all below the median: a long trial is held against short ones that are over, and behind for a while.
_SHARE_KEPT = 75.0
_FIRST_PRUNING_EPOCH = 2
_NUM_BEFORE_PRUNING = 3

#: Times that a trial is tried whose process is killed. One that takes all memory must not be tried for ever.
_MAX_TRIES = 3

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@contextmanager
def open_study(folder: RunFolder, is_pruning: bool = True) -> Iterator[optuna.Study]:
    """The study of a folder; made if there is none. The folder's lock is held while this is entered.

    Args:
        folder: that is there.
        is_pruning: whether trials of the worst quarter end early.

    Yields:
        The study.

    Raises:
        StorageError: the file is no study.
    """
    path = (folder.root / STUDY).absolute()
    optuna.logging.set_verbosity(
        optuna.logging.ERROR
    )  # what it says is said here, in lines that name the recipe's keys
    url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _SQLITE_TIMEOUT}})
        study = optuna.create_study(
            study_name="tune",
            storage=storage,
            direction="maximize",
            pruner=_worst_quarter() if is_pruning else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        raise StorageError(
            f"Expected a study in {path}, got a file that can't be read as one ({type(error).__name__}). Bring it "
            "back, or choose another folder with --out."
        ) from error
    try:
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _worst_quarter() -> optuna.pruners.BasePruner:
    return optuna.pruners.PercentilePruner(
        _SHARE_KEPT,
        n_startup_trials=_NUM_BEFORE_PRUNING,
        n_warmup_steps=_FIRST_PRUNING_EPOCH,
        n_min_trials=_NUM_BEFORE_PRUNING,
    )


def take_identity(study: optuna.Study, identity: Mapping[str, Any], folder: RunFolder) -> None:
    """Says what the trials depend on, which must be what it was when the study was begun.

    Args:
        study: of the folder.
        identity: parts of it, ready for JSON; those that are not given are not compared, and new ones are added.
        folder: for the message.

    Raises:
        StorageError: something differs.
    """
    identity = json.loads(json.dumps(identity))
    before = study.user_attrs.get("identity", {})
    known = identity.keys() & before.keys()
    changed = differences(*({part: each[part] for part in known} for each in (before, identity)))
    if changed:
        raise StorageError(
            f"Expected to go on with the trials in {folder.root}, got other values of {', '.join(changed)} than they "
            "were begun with. Bring them back, or choose another folder with --out."
        )
    if len(known) < len(identity):
        study.set_user_attr("identity", {**before, **identity})


def run_next(
    study: optuna.Study,
    folder: RunFolder,
    num_trials: int,
    space: Space,
    recipe_values: Mapping[str, Any],
    seed: int,
    objective: Callable[[Trial, dict[str, Any]], float],
) -> bool:
    """Takes the next trial and runs it.

    Args:
        study: of the folder.
        folder: its lock is held while the trial is chosen.
        num_trials: of the study, over all processes and calls; that of the recipe as it was given is the first.
        space: what may be drawn.
        recipe_values: what the recipe says for the keys of the space.
        seed: of what is drawn, with the number of the trial.
        objective: takes the trial and its values, and returns the score; an error of the values fails the trial.

    Returns:
        False if there is none left.
    """
    with ExitStack() as held:
        with lock(folder.lock, is_waiting=True):
            _give_back_abandoned(study, folder)
            trials = study.get_trials(deepcopy=False)
            if sum(map(_counts, trials)) >= num_trials:
                return False
            if not any(
                _is_recipe(trial) and (_counts(trial) or trial.state == TrialState.WAITING) for trial in trials
            ):
                study.enqueue_trial(_params(space, recipe_values), user_attrs={"is_recipe": True})
            # Seeded by its number, so that no two processes draw the same, and a study that goes on draws as it would.
            study.sampler = optuna.samplers.TPESampler(
                seed=(seed + 7919 * len(trials)) % 2**32, n_startup_trials=_NUM_RANDOM
            )
            trial = study.ask()
            held.enter_context(lock(_lock_of(folder, trial.number)))
            values = _values(trial, space, recipe_values)
            trial.set_user_attr("values", values)
        _run(study, trial, values, objective)
    return True


def tried(study: optuna.Study) -> list[TriedRecipe]:
    """All trials but those that were given back: they are there again, under another number."""
    records = []
    for trial in study.get_trials(deepcopy=False):
        known = trial.user_attrs
        if not _counts(trial):
            continue
        names = ("values", "is_recipe", "num_epochs", "standard_error", "loss", "cpu_seconds", "error")
        record = {name: known[name] for name in names if name in known}
        records.append(TriedRecipe(trial.number, _STATES[trial.state], score=trial.value, **record))
    return records


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of the N; not one that waits, or whose process ended in the middle of it."""
    if trial.state == TrialState.FAIL:
        return "error" in trial.user_attrs
    return trial.state != TrialState.WAITING


def _is_recipe(trial: FrozenTrial) -> bool:
    return trial.user_attrs.get("is_recipe", False)


def _lock_of(folder: RunFolder, number: int) -> Path:
    return folder.root / f"{folder.lock.name}-trial-{number}"


def _give_back_abandoned(study: optuna.Study, folder: RunFolder) -> None:
    running = (TrialState.RUNNING,)
    without_lock = {
        trial.number for trial in study.get_trials(False, running) if not is_locked(_lock_of(folder, trial.number))
    }
    for trial in study.get_trials(False, running):  # once more: the others were told, and then their locks removed
        if trial.number not in without_lock:
            continue
        _lock_of(folder, trial.number).unlink(missing_ok=True)
        num_tries = trial.user_attrs.get("num_tries", 0) + 1
        if num_tries < _MAX_TRIES:
            logger.info("trial %d was cut off; it is tried again", trial.number)
            _give_back(study, trial, num_tries)
            continue
        study.tell(trial.number, state=TrialState.FAIL)
        error = {"error": f"its process was killed {num_tries} times"}
        study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={**trial.user_attrs, **error}))


def _give_back(study: optuna.Study, trial: FrozenTrial, num_tries: int) -> None:
    """Leaves a trial to whoever comes next, with the same values."""
    study.tell(trial.number, state=TrialState.FAIL)
    study.enqueue_trial(trial.params, user_attrs={"is_recipe": _is_recipe(trial), "num_tries": num_tries})


def _params(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a recipe as Optuna has them; without those that can't be drawn."""
    return {
        key: _label(values[key]) if isinstance(possible, Choices) else values[key]
        for key, possible in space.items()
        if values[key] in possible
    }


def _values(trial: Trial, space: Space, recipe_values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trial, drawn where they are not given."""
    if trial.user_attrs.get("is_recipe"):
        drawn = _params(space, recipe_values)
        for key in drawn:
            _draw(trial, key, space)
        return dict(recipe_values)
    return {key: _draw(trial, key, space) for key in space}


def _draw(trial: Trial, key: str, space: Space) -> Any:
    possible = space[key]
    if isinstance(possible, Choices):
        labels = [_label(value) for value in possible.values]
        return possible.values[labels.index(trial.suggest_categorical(key, labels))]
    if possible.is_whole:
        return trial.suggest_int(key, int(possible.low), int(possible.high), log=possible.is_log)
    return possible.rounded(trial.suggest_float(key, possible.low, possible.high, log=possible.is_log))


def _label(value: Any) -> Any:
    """A value as one of Optuna's categories, which hold no lists."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)


def _run(
    study: optuna.Study,
    trial: Trial,
    values: dict[str, Any],
    objective: Callable[[Trial, dict[str, Any]], float],
) -> None:
    start, score, state = time.process_time(), None, TrialState.COMPLETE
    try:
        score = objective(trial, values)
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except (DivergedError, RecipeError, torch.OutOfMemoryError) as error:
        state = TrialState.FAIL
        trial.set_user_attr("error", str(error))
        logger.warning("trial %d failed: %s", trial.number, error)
    except BaseException:  # Ctrl+C too
        _give_back(study, study.get_trials(deepcopy=False)[trial.number], trial.user_attrs.get("num_tries", 0))
        raise
    trial.set_user_attr("cpu_seconds", round(time.process_time() - start, 1))
    study.tell(trial, score, state)
