"""The page to try a student, as a folder for a Space: the page's own file, what it loads, and what to install.

A Space holds no row of the data and nothing else of the run: it loads student and teacher by their ids. The teacher is
on it only if the run took one from the Hub as it is; one that was fine-tuned here is not published.
"""

import json
import logging
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, SpaceCard, SpaceCardData, constants
from huggingface_hub.errors import RepositoryNotFoundError

from distilbert_kd.errors import HubError
from distilbert_kd.hub.account import hub_errors, is_private
from distilbert_kd.hub.card import has_pairs
from distilbert_kd.hub.facts import RunFacts
from distilbert_kd.hub.published import PublishedFolder, make_empty, published_of
from distilbert_kd.hub.target import HubTarget
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.storage import write_text


__all__ = ["build_space", "check_space", "push_space"]

logger = logging.getLogger(__name__)

#: What the Space is made with; constraints.txt has the same, which is what the page is tested with.
GRADIO_VERSION = "6.31.0"
PYTHON_VERSION = "3.11"
#: Without CUDA, which the free hardware has no use for: gigabytes.
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
_LOWEST = {"torch": "2.10", "transformers": "5.19"}


def build_space(folder: RunFolder, facts: RunFacts, target: HubTarget) -> PublishedFolder:
    """Builds the folder of the Space, in place of one that an earlier push left.

    Args:
        folder: of a finished run.
        facts: of the run.
        target: where the student goes; the Space has the same name.

    Returns:
        The folder: `README.md`, `app.py`, `page.json`, `requirements.txt`.

    Raises:
        HubError: a file holds what looks like a token of the Hub.
        StorageError: the folder can't be written.
    """
    root = folder.space
    make_empty(root)
    settings = _settings(facts, target)
    write_text(root / "app.py", files("distilbert_kd.demo_app").joinpath("page.py").read_text("utf-8"))
    write_text(root / "page.json", json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    write_text(root / "requirements.txt", _requirements(facts.environment.get("versions") or {}))
    write_text(root / "README.md", str(_card(settings, target)))
    return published_of(root)


def check_space(target: HubTarget, api: HfApi) -> bool:
    """Whether the Space is there already.

    Args:
        target: where the student goes.
        api: the client.

    Returns:
        Whether it is.

    Raises:
        HubError: a private student would be shown on a public Space, or the Hub can't be asked.
    """
    with hub_errors(f"to look at the Space {target.repo}"):
        try:
            is_public = not api.space_info(target.repo).private
        except RepositoryNotFoundError:
            return False
    if is_public and _is_for_few(target, api):
        raise HubError(
            f"Expected the Space {target.repo} to be private, as the student is, got a public one that is there. "
            "Nothing was sent. Make it private in its settings, or leave out space."
        )
    return True


def push_space(published: PublishedFolder, target: HubTarget, api: HfApi) -> str:
    """Uploads the folder of a Space as one commit; the Space is made if it is missing.

    Args:
        published: from `build_space`.
        target: where the student went.
        api: the client.

    Returns:
        Its address.

    Raises:
        HubError: the Hub refuses or can't be reached.
    """
    with hub_errors(f"to upload the Space {target.repo}; the student was pushed"):
        if not check_space(target, api):
            private = True if _is_for_few(target, api) else target.private
            api.create_repo(target.repo, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        operations = [CommitOperationAdd(name, published.root / name) for name in published.sizes]
        api.create_commit(target.repo, operations, commit_message="Add the page to try it", repo_type="space")
    return f"{constants.ENDPOINT}/spaces/{target.repo}"


def _is_for_few(target: HubTarget, api: HfApi) -> bool:
    """Whether the student is private: as asked, or because its repository is, whatever is asked."""
    return bool(target.private or is_private(api, target))


def _settings(facts: RunFacts, target: HubTarget) -> dict[str, Any]:
    """What the page reads, see `page_of_space`."""
    teacher = facts.recipe["teacher"]
    is_published = facts.teacher_id is not None and teacher.get("finetune") is None
    commit = (facts.environment.get("teacher") or {}).get("commit")
    num_layers = {name: facts.results["models"][name]["num_layers"] for name in ("student", "teacher")}
    about = [f"A student of {num_layers['student']} layers, distilled from a teacher of {num_layers['teacher']}."]
    if not is_published:
        about.append("The student is alone: its teacher is not on the Hub.")
    return {
        "title": target.repo.split("/")[-1],
        "about": about,
        "student": {"model": target.repo, "revision": target.tag or target.revision},
        "teacher": {"model": facts.teacher_id, "revision": commit, "labels": teacher.get("labels")}
        if is_published
        else None,
        "max_length": facts.recipe["data"]["max_length"],
        "is_pair": has_pairs(facts),
    }


def _requirements(versions: Mapping[str, str | None]) -> str:
    """The versions that made the student, without a build's own mark (+cpu, +cu130)."""
    pins = [
        f"{name}=={str(versions[name]).partition('+')[0]}" if versions.get(name) else f"{name}>={lowest}"
        for name, lowest in _LOWEST.items()
    ]
    return "\n".join([f"--extra-index-url {_TORCH_INDEX}", *pins]) + "\n"


def _card(settings: Mapping[str, Any], target: HubTarget) -> SpaceCard:
    models = [source["model"] for source in (settings["student"], settings["teacher"]) if source]
    data = SpaceCardData(
        title=settings["title"],
        sdk="gradio",
        sdk_version=GRADIO_VERSION,
        python_version=PYTHON_VERSION,
        app_file="app.py",
        models=models,
        license=target.license,
        tags=["knowledge-distillation"],
    )
    text = (
        f"Try [{target.repo}](https://huggingface.co/{target.repo}), a distilled classifier: its answer, its "
        "teacher's if that is on the Hub, and both at a temperature. `page.json` says what is loaded."
    )
    return SpaceCard(f"---\n{data.to_yaml()}\n---\n\n# {target.repo.split('/')[-1]}\n\n{text}\n")
