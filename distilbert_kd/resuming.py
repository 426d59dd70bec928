"""Going on with a run that was cut off.

A run that has begun to train keeps `progress.json` in its folder: its identity (recipe, data, teacher, number of
processes, versions), and a record of each model that is done. Started again, it must be the same run. Models that are
done are taken from their folders, a training in the middle goes on from its last whole checkpoint.
"""

import json
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from distilbert_kd.allowed_changes import described, is_version, key_of, refuse_unknown, versions_now
from distilbert_kd.checkpoints import newest_whole, read_commit
from distilbert_kd.errors import RecipeError, StorageError
from distilbert_kd.held_keys import holder_of, is_within
from distilbert_kd.plain_yaml import parse_yaml
from distilbert_kd.processes import failing_together
from distilbert_kd.run_folder import RunFolder, read_record_text
from distilbert_kd.storage import sha256_of, write_text


__all__ = ["Continuation", "Progress", "differences", "enter_run", "flat_recipe", "newest_checkpoint"]

logger = logging.getLogger(__name__)

#: What the parts of an identity are that have the name of a section of the recipe, too.
_CONTENTS = {"data": "the rows", "text": "the text", "teacher": "the weights"}

#: Where a run, the teacher's answers and tokenised text are kept. A full disk is left by another place.
_PLACES = frozenset(("output_dir", "teacher.cache_dir", "text.cache_dir"))


@dataclass(frozen=True)
class Continuation:
    """What a training needs to be cut off and to go on.

    Attributes:
        identity: What it depends on, for its checkpoints.
        checkpoint: The one to go on from; None to start.
        on_written: Is called with the model's folder, before it gets its name, and with the history and the seconds.
    """

    identity: Mapping[str, Any]
    checkpoint: Path | None = None
    on_written: Callable[[Path, list[dict[str, float]], float], None] = lambda folder, history, seconds: None


def flat_recipe(yaml: str) -> dict[str, Any]:
    """A resolved recipe as `section.key` and values, without what changes no result: places, and the push."""
    values, _ = parse_yaml(yaml)
    return {name: value for name, value in _flat(values) if name.split(".")[0] != "push" and name not in _PLACES}


def enter_run(folder: RunFolder, recipe: Mapping[str, Any], allowed: Collection[str] = ()) -> None:
    """Makes the run folder, or takes one that the same recipe has begun or finished. The main process calls this.

    Args:
        folder: of the run.
        recipe: see `flat_recipe`.
        allowed: keys, and sections, that may differ.

    Raises:
        RecipeError: a key that is allowed is none.
        StorageError: the folder can't be made, or holds another run, or something else. A run that was killed between
            its results and its end still has the record of its progress, and is gone on with.
    """
    if not folder.progress.is_file():
        finished = flat_recipe(read_record_text(folder.recipe)) if folder.is_finished() else {}
        refuse_unknown(allowed, {**finished, **recipe})
        if not finished:
            folder.create()
        elif changed := differences({"recipe": finished}, {"recipe": recipe}):
            raise StorageError(
                f"Expected the recipe of the run in {folder.root}, which is finished, got other values of "
                f"{', '.join(changed)}. Choose another folder with output_dir=..., or move this one away; nothing is "
                "overwritten."
            )
        return
    progress = Progress(folder)
    refuse_unknown(allowed, {**progress.identity["recipe"], **recipe})
    before = {name: value for name, value in progress.identity.items() if name == "recipe" or is_version(name)}
    now = {"recipe": recipe, **versions_now()}
    progress.refuse_changed(before, now, allowed)


def newest_checkpoint(folder: Path, identity: Mapping[str, Any], allowed: Collection[str] = ()) -> Path | None:
    """The last whole checkpoint of a training that depends on the same. Every process calls this.

    Args:
        folder: of the checkpoints.
        identity: what the training depends on.
        allowed: keys, and sections, that may differ.

    Returns:
        Its folder, on every process; None if there is none.

    Raises:
        StorageError: it is of a training that depended on something else.
    """
    found: list[str | None] = [None]
    with failing_together():
        if PartialState().is_main_process and (place := newest_whole(folder)) is not None:
            _refuse_changed(
                (read_commit(place) or {}).get("identity", {}), identity, allowed, f"the checkpoint {place}"
            )
            found = [str(place)]
    broadcast_object_list(found)
    return None if found[0] is None else Path(found[0])


@dataclass
class Progress:
    """The record of what a run has done. Every process reads it when it is made, the main one writes.

    Attributes:
        folder: Of the run.
        is_main: Whether this process writes.
        identity: Of the run that began it; empty for a new one.
        models: By name: seconds, and the SHA-256 of each file.
    """

    folder: RunFolder
    is_main: bool = True
    identity: dict[str, Any] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reads what is there."""
        if self.folder.progress.is_file():
            try:
                record = json.loads(self.folder.progress.read_text(encoding="utf-8"))
                self.identity, self.models = record["identity"], record["models"]
                self.identity["recipe"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise StorageError(
                    f"Expected the record of a run in {self.folder.progress}, got a file that can't be read "
                    f"({error}). Choose another folder with output_dir=..."
                ) from error
        self.has_begun = bool(self.identity)

    def take_identity(self, identity: Mapping[str, Any], allowed: Collection[str]) -> None:
        """Says what the run depends on, which must be what it depended on when it was begun; and then that it goes on.

        Args:
            identity: recipe, data, teacher and number of processes, ready for JSON; the versions are added here.
            allowed: keys, and sections, that may differ.

        Raises:
            RecipeError: what differs is allowed, but a model or a checkpoint holds it.
            StorageError: something else differs, or a model that is done is not what was written.
        """
        identity = {**identity, **versions_now()}
        with failing_together():  # each process has rows, models and packages of its own
            if self.has_begun:
                self.refuse_changed(self.identity, identity, allowed)
                for name in filter(self.is_done, self.models):
                    self.check_model(name, allowed)
        if self.has_begun:
            logger.info("going on with the run in %s, which was cut off", self.folder.root)
        if self.has_begun and (changed := differences(self.identity, identity)):
            logger.warning("It goes on with other values of %s.", ", ".join(changed))
        self.identity = json.loads(json.dumps(identity))

    def refuse_changed(self, before: Mapping[str, Any], now: Mapping[str, Any], allowed: Collection[str]) -> None:
        """Refuses what differs and is not allowed, and of what is allowed what a model or a checkpoint holds.

        Args:
            before: the identity of the run that was begun, or what is known of it.
            now: the same of this start.
            allowed: keys, and sections, that may differ.

        Raises:
            RecipeError: what differs is allowed, but held.
            StorageError: something else differs.
        """
        holders = {name: holder_of(name, self.folder, self.is_done) for name in differences(before, now)}
        held = {name: holder for name, holder in holders.items() if holder is not None}
        _refuse_changed(before, now, allowed, f"the run in {self.folder.root}", held)
        for name, holder in held.items():
            raise RecipeError(
                f"{name}: expected {_CONTENTS.get(name, 'the value')} that the run was begun with, got another, which "
                f"would be recorded and not used: {holder}"
            )

    def write(self) -> None:
        """Keeps it, as soon as something is trained."""
        record = json.dumps({"identity": self.identity, "models": self.models}, indent=1)
        with failing_together():
            if self.is_main:
                write_text(self.folder.progress, record)

    def add_model(self, name: str, written: Path, seconds: float) -> None:
        """Keeps the record of a model, before its folder gets its name.

        Args:
            name: of the model.
            written: where its files are.
            seconds: of its training.
        """
        with failing_together():
            self.models[name] = {"seconds": seconds, "sha256": _hashes(written) if self.is_main else {}}
        self.write()

    def is_done(self, name: str) -> bool:
        """Whether a model was trained by an earlier start of this run."""
        return self.has_begun and name in self.models and (self.folder.root / name).is_dir()

    def check_model(self, name: str, allowed: Collection[str]) -> None:
        """Refuses a model that is not what was written.

        Args:
            name: of a model that is done.
            allowed: may hold its name.

        Raises:
            StorageError: a file is missing or another.
        """
        place = self.folder.root / name
        expected, found = self.models[name]["sha256"], _hashes(place)
        changed = sorted(file for file in expected if found.get(file) != expected[file])
        if changed and name not in allowed:
            raise StorageError(
                f"Expected the {name} that this run trained in {place}, got another {changed[0]}. Bring it back, move "
                f"{place} away to train it again, or take it as it is with --allow-changed {name}."
            )

    def history_of(self, name: str) -> list[dict[str, float]]:
        """What was logged of a model that is done.

        Args:
            name: of the model.

        Returns:
            Its log lines.

        Raises:
            StorageError: the file is damaged.
        """
        try:
            return json.loads(self.folder.history.read_text(encoding="utf-8"))[name]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"Expected what was logged of the {name} in {self.folder.history}, got a file that can't be read "
                f"({type(error).__name__}: {error}). Bring it back, or move {self.folder.root} away to begin anew."
            ) from error

    def remove(self) -> None:
        """Ends it: the run is whole."""
        with failing_together():
            if self.is_main:
                self.folder.progress.unlink(missing_ok=True)


def _refuse_changed(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    allowed: Collection[str],
    whose: str,
    held: Mapping[str, str] = MappingProxyType({}),
) -> None:
    changed = differences(before, now)
    refused = [name for name in changed if not is_within(name, allowed)]
    if refused:
        named = ", ".join(described(name, before, now) for name in refused)
        held_too = [
            f"Bring them back: {name} can't be changed any more, {held[name]}" for name in refused if name in held
        ]
        keys = list(dict.fromkeys(map(key_of, refused)))[:3]
        may_be_allowed = (
            "Bring them back, choose another folder with output_dir=..., or take what you know to be right with "
            + " ".join(f"--allow-changed {key}" for key in keys)
        )
        way = held_too[0] if held_too else may_be_allowed + _what_teacher_is(refused, before, now)
        raise StorageError(
            f"Expected to go on with {whose}, got other values of {named} than it was begun with. {way}"
        )


def _what_teacher_is(refused: Collection[str], before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """A section of the recipe has the name of a part of the identity: which one differs, and why it may."""
    if "teacher" not in refused:
        return ""
    is_by_seed = "seed" in differences(before, now)
    return (
        ". Here teacher is the weights that teacher and student start from, not the section of the recipe"
        + ("; the other seed draws those of a new head" if is_by_seed else "")
        + ". --allow-changed teacher allows both"
    )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of what differs between two identities: of the recipe each key, of the rest the part."""
    recipes = before.get("recipe", {}), now.get("recipe", {})
    keys = [name for name in recipes[0].keys() | recipes[1].keys() if recipes[0].get(name) != recipes[1].get(name)]
    parts = [name for name in before.keys() | now.keys() if name != "recipe" and before.get(name) != now.get(name)]
    return sorted([*keys, *parts])


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()}


def _flat(values: dict, prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for name, value in values.items():
        pairs += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return pairs
