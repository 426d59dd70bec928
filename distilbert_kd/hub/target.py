"""Where a student goes on the Hub, and what can be wrong with that before anyone is asked."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from distilbert_kd.errors import HubError
from distilbert_kd.training_arguments import shown


__all__ = ["HubTarget", "is_repo_id", "target_problems"]

_REF = re.compile(r"[A-Za-z0-9_][\w./-]*")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_LONGEST = 96  # of a repository's id, on the Hub


@dataclass(frozen=True)
class HubTarget:
    """Where to push, and what the card can't know by itself.

    Attributes:
        repo: `owner/name`.
        private: Whether the repository is private; None leaves a new one to the owner's default.
        revision: The branch, made if it is missing; None is `main`.
        create_pr: Whether to open a pull request in place of a commit.
        tag: Name that the commit gets.
        license: Id of the licence, for the card.
        language: Code of the texts' language, for the card.
        space: Whether a Space of the same name gets the page to try it.
    """

    repo: str
    private: bool | None = None
    revision: str | None = None
    create_pr: bool = False
    tag: str | None = None
    license: str | None = None
    language: str | None = None
    space: bool = False

    @classmethod
    def of(cls, *sources: Mapping[str, Any]) -> Self:
        """Takes each key from the last source that gives it.

        Args:
            *sources: keys of this record to values; None gives nothing.

        Returns:
            The target.

        Raises:
            HubError: no repository is given, or the values don't fit each other.
        """
        given = {key: value for source in sources for key, value in source.items() if value is not None}
        problems = target_problems(given)
        if problems:
            raise HubError("\n".join(["The push can't be done as asked:", *(f"  - {line}" for line in problems)]))
        return cls(**given)

    def command(self, run: Path) -> str:
        """The command that pushes a run here."""
        words = ["distilbert-kd", "push", str(run), "--repo", self.repo]
        words += {True: ["--private"], False: ["--public"], None: []}[self.private]
        for name in ("revision", "tag", "license", "language"):
            value = getattr(self, name)
            words += [f"--{name}", value] if value else []
        words += [option for option, is_on in (("--create-pr", self.create_pr), ("--space", self.space)) if is_on]
        return shlex.join(words)


def target_problems(push: Mapping[str, Any]) -> list[str]:
    """What is wrong with the keys of `push`, one line each, without asking the Hub.

    Args:
        push: keys of `HubTarget` to values, which may be of a wrong type.

    Returns:
        The problems; none if there is nothing to say.
    """
    given = {key: value for key, value in push.items() if value is not None and value is not False}
    if "repo" not in given:
        return ["push.repo: missing; name the repository, as owner/name"]
    problems = []
    repo = given["repo"]
    if isinstance(repo, str) and not is_repo_id(repo):
        expected = f"owner/name of letters, digits and . _ -, {_LONGEST} characters at most"
        problems.append(f"push.repo: expected {expected}, got {shown(repo)}{_fault_of(repo)}")
    for key in ("revision", "tag"):
        value = given.get(key)
        if isinstance(value, str) and not _is_ref(value):
            problems.append(f"push.{key}: expected a name that git takes, such as v1.0, got {shown(value)}")
    if isinstance(given.get("license"), str) and not _LICENSE.fullmatch(given["license"]):
        problems.append(f"push.license: expected an id such as apache-2.0, got {shown(given['license'])}")
    if "create_pr" in given:
        other = [key for key in ("revision", "tag") if key in given]
        problems += [f"push.{key}: not allowed with create_pr, which opens a request to main" for key in other]
        if "space" in given:
            problems.append("push.space: not allowed with create_pr: the page loads what is on a branch or has a tag")
    return problems


def is_repo_id(name: str) -> bool:
    """Whether a name is `owner/name` as the Hub's client takes it; no file and no network is asked."""
    from huggingface_hub.errors import HFValidationError  # not at once: each recipe imports this module
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented there

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1 and len(name) <= _LONGEST  # the client measures owner and name each for itself


def _fault_of(name: str) -> str:
    """What a name that is refused has that it may not have."""
    parts = name.split("/")
    strange = re.search(r"[^A-Za-z0-9._/-]", name)
    doubled = re.search(r"--|\.\.", name)
    if len(parts) != 2 or not all(parts):
        return ": it is not two names with one / between them"
    if strange or doubled:
        return f": it holds {shown((strange or doubled)[0])}"  # type: ignore[index]  # one of them is there
    if any(part[0] in ".-" or part[-1] in ".-" for part in parts):
        return ": a name begins or ends with . or -"
    if name.endswith(".git"):
        return ": it ends in .git"
    return f": it has {len(name)} characters" if len(name) > _LONGEST else ""


def _is_ref(name: str) -> bool:
    return bool(_REF.fullmatch(name)) and not re.search(r"\.\.|//|/\.|\.lock$|[/.]$", name)
