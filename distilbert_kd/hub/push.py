"""Pushes the student of a run: one commit of what may go out, loaded back and compared.

The run never depends on it: the push reads the folder of a finished run, and can be repeated. What the Hub has already
is not sent again, whether from an earlier push or from one that was cut off.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, constants

from distilbert_kd.errors import HubError
from distilbert_kd.hub.account import (
    check_account,
    check_card,
    check_tag_is_free,
    commit_of_tag,
    hub_errors,
    is_on_hub,
    prepare_repository,
)
from distilbert_kd.hub.card import planned_card
from distilbert_kd.hub.facts import RunFacts
from distilbert_kd.hub.load_back import load_back
from distilbert_kd.hub.published import PublishedFolder, build_published
from distilbert_kd.hub.remote import check_tag, files_on_hub, stale_files
from distilbert_kd.hub.space import build_space, check_space, push_space
from distilbert_kd.hub.target import HubTarget
from distilbert_kd.run_folder import RunFolder


__all__ = ["Pushed", "check_before_training", "push_results", "push_run", "target_of"]

logger = logging.getLogger(__name__)

#: Logits of the same weights in the same process differ by nothing.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        url: Where to look at it: the commit, or the pull request.
        revision: To load it by.
        commit: Its full hash.
        is_new: Whether anything had changed since the last push.
        checked: One line on what came back, or None if that was not asked for.
        space: Where the page to try it is, or None if that was not asked for.
        taken_out: Files of an earlier student that are no longer there.
    """

    url: str
    revision: str
    commit: str
    is_new: bool
    checked: str | None
    space: str | None = None
    taken_out: tuple[str, ...] = ()

    def describe(self) -> str:
        """What a user is told at the end."""
        first = "Pushed" if self.is_new else "The student had not changed and was not sent again"
        out = f"Taken out, as of an earlier student: {', '.join(self.taken_out)}" if self.taken_out else None
        space = f"The page to try it: {self.space}" if self.space else None
        return "\n".join(filter(None, [f"{first}: {self.url}", out, self.checked, space]))


def target_of(run: Path, options: Mapping[str, Any]) -> HubTarget:
    """Where to push a run: what its recipe says under `push`, and what is given wins.

    Args:
        run: the folder of a finished run.
        options: keys of `HubTarget`; None is not given.

    Returns:
        The target.

    Raises:
        HubError: no repository is named, or the keys don't fit each other.
        StorageError: it is no finished run.
    """
    return HubTarget.of(RunFacts.read(RunFolder.open(run)).push, options)


def check_before_training(recipe: Mapping[str, Any], target: HubTarget) -> None:
    """Finds in seconds what would make the push fail after hours: login, rights, name, metadata. Makes the repository.

    Args:
        recipe: with every default.
        target: where to push.

    Raises:
        HubError: the push would fail.
    """
    api = HfApi()
    check_account(target, api)
    check_tag_is_free(target, api)
    check_card(planned_card(recipe, target))
    _prepare(target, api)
    logger.info("push: %s can be written", target.repo)


def push_run(run: Path, target: HubTarget, has_check: bool = True) -> Pushed:
    """Pushes the student of a run as one commit, tags it, loads it back and compares.

    Args:
        run: the folder of a finished run.
        target: where to.
        has_check: whether to load it back.

    Returns:
        What was done.

    Raises:
        HubError: the Hub refused, can't be reached, or gave back something else. A note says what to run later.
        StorageError: it is no finished run, or the disk is at fault.
    """
    folder = RunFolder.open(run)
    try:
        return _push(folder, target, has_check)
    except BaseException as error:  # a full disk and Ctrl+C too
        error.add_note(f"The run is whole in {folder.root}. To push it later: {target.command(folder.root)}")
        raise


def push_results(run: Path, target: HubTarget, results: Mapping[str, Any]) -> None:
    """Pushes a run that has just been done, as `push_run` does, and says so in the log.

    Args:
        run: its folder.
        target: where to.
        results: of the run, for whoever catches the error.

    Raises:
        HubError: see `push_run`. Whatever is raised has the results, as `results`.
    """
    try:
        pushed = push_run(run, target)
    except BaseException as error:
        error.__dict__["results"] = results
        raise
    for line in pushed.describe().splitlines():
        logger.info("%s", line)


def _push(folder: RunFolder, target: HubTarget, has_check: bool) -> Pushed:
    api = HfApi()
    check_account(target, api)
    facts = RunFacts.read(folder).known_to(lambda name: is_on_hub(api, name))
    published = build_published(folder, facts, target)
    space = build_space(folder, facts, target) if target.space else None
    check_card(ModelCard.load(published.root / "README.md"))
    _prepare(target, api)
    before, files = _head(api, target), files_on_hub(api, target)
    check_tag(api, target, before, files, published)
    stale = stale_files(files, published)
    num_bytes = sum(published.sizes.values())
    logger.info("push: %d files, %.1f MB in all, for %s", len(published.sizes), num_bytes / 1e6, target.repo)
    with hub_errors(f"to upload the student to {target.repo}"):
        info = _commit(api, published, stale, target, facts)
    revision = info.pr_revision or target.tag or target.revision or constants.DEFAULT_REVISION
    commit = info.oid
    is_new = commit != before
    if target.tag:
        _tag(api, target, commit)
    checked = _check(folder, facts, target, revision, commit) if has_check else None
    address = push_space(space, target, api) if space else None
    return Pushed(info.pr_url or info.commit_url, revision, commit, is_new, checked, address, tuple(stale))


def _prepare(target: HubTarget, api: HfApi) -> None:
    """Makes the repository. Its owner's default may make it private, so its Space is looked at again then."""
    if target.space:
        check_space(target, api)
    prepare_repository(target, api)
    if target.space:
        check_space(target, api)


def _head(api: HfApi, target: HubTarget) -> str | None:
    with hub_errors(f"to look at {target.repo}"):
        return api.model_info(target.repo, revision=target.revision).sha


def _commit(
    api: HfApi, published: PublishedFolder, stale: Sequence[str], target: HubTarget, facts: RunFacts
) -> CommitInfo:
    """One commit, whatever the size: `upload_folder` may split a folder, and a half-sent model would be public."""
    layers, task = len(facts.results["student"]["layers"]), facts.results["task"]
    additions = [CommitOperationAdd(name, published.root / name) for name in published.sizes]
    deletions = [CommitOperationDelete(name, is_folder=False) for name in stale]
    return api.create_commit(
        target.repo,
        [*additions, *deletions],
        commit_message=f"Add student of {layers} layers, distilled on {task}",
        commit_description=f"Run {facts.results['name']}, seed {facts.results['seed']}.",
        revision=target.revision,
        create_pr=target.create_pr,
    )


def _tag(api: HfApi, target: HubTarget, commit: str) -> None:
    tag, tagged = str(target.tag), commit_of_tag(target, api)
    if tagged == commit:
        return
    if tagged is not None:
        raise HubError(
            f"Expected the tag {tag} of {target.repo} to be free, got one at {tagged[:8]}. The student was pushed as "
            f"{commit[:8]}; a tag is never moved: choose another."
        )
    with hub_errors(f"to tag {target.repo} with {tag}"):
        api.create_tag(target.repo, tag=tag, revision=commit)
    logger.info("push: tagged %s as %s", commit[:8], tag)


def _check(folder: RunFolder, facts: RunFacts, target: HubTarget, revision: str, commit: str) -> str:
    """The line on what came back."""
    logger.info("push: loading it back with an empty cache")
    back = load_back(target.repo, revision, folder.student, facts.recipe["data"]["max_length"])
    if back.commit != commit or not back.largest_difference <= _TOLERANCE:
        raise HubError(
            f"Expected {target.repo} at {revision} to be the student of {folder.root} (commit {commit[:8]}), got "
            f"commit {str(back.commit)[:8]} whose logits differ by up to {back.largest_difference:.3g}. Look at the "
            "repository: somebody may have pushed at the same time, or it holds other weights beside these."
        )
    return (
        f"Loaded back from {target.repo} at {revision} ({commit[:8]}) into an empty cache: "
        f"{back.num_texts} texts, largest difference of a logit {back.largest_difference:g}."
    )
