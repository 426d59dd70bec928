"""What is asked of the Hub before a push, and before hours of training: who is this, may they write there?

The token comes from the environment (HF_TOKEN) or the stored login, as `huggingface_hub` finds it; no message has it.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from huggingface_hub import HfApi, ModelCard, constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from distilbert_kd.errors import HubError
from distilbert_kd.hub.target import HubTarget


__all__ = [
    "check_account",
    "check_card",
    "check_tag_is_free",
    "commit_of_tag",
    "hub_errors",
    "is_on_hub",
    "is_private",
    "prepare_repository",
]

logger = logging.getLogger(__name__)

_GET_TOKEN = (
    f"Make one with write rights at {constants.ENDPOINT}/settings/tokens, then put it into the environment as "
    "HF_TOKEN or run `hf auth login`; never on the command line or in a recipe."
)
_WRITING_ROLES = {"admin", "write", "contributor"}


@contextmanager
def hub_errors(doing: str, advice: str = "Try again; what was sent already is not sent again.") -> Iterator[None]:
    """Turns whatever the Hub's client raises into one error.

    Args:
        doing: what was tried, after "Expected".
        advice: what to do.

    Yields:
        Nothing.

    Raises:
        HubError: the Hub refused, or can't be reached.
    """
    try:
        yield
    except HubError:
        raise
    except OfflineModeIsEnabled as error:
        raise HubError(f"Expected {doing}, got: HF_HUB_OFFLINE is set. Unset it, and push again.") from error
    except (HfHubHTTPError, OSError, RuntimeError, ValueError) as error:
        raise HubError(f"Expected {doing}, got: {_said(error)}. {advice}") from error
    except Exception as error:  # the client's transport has errors of its own, which it doesn't export
        if type(error).__module__.split(".")[0] not in {"httpx", "httpx2", "httpcore", "httpcore2", "hf_xet"}:
            raise
        raise HubError(f"Expected {doing}, got: {_said(error)}. {advice}") from error


def check_account(target: HubTarget, api: HfApi) -> None:
    """Login, and rights to write, without changing anything.

    Args:
        target: where to push.
        api: the client.

    Raises:
        HubError: there is no token or a wrong one, it may not write there, or a private push would be public.
    """
    account = _whoami(api)
    role = ((account.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise HubError(f"Expected a token that may write, got a read-only one of {account['name']}. {_GET_TOKEN}")
    is_hidden = is_private(api, target)
    if is_hidden is None:
        _refuse_foreign_owner(target, account)
        return
    if not target.create_pr:  # which whoever can read may open
        with hub_errors(f"to be allowed to write to {target.repo} as {account['name']}", _GET_TOKEN):
            api.auth_check(target.repo, write=True)
    if target.private and not is_hidden:
        raise HubError(
            f"Expected {target.repo} to be private, as asked, got a public repository that exists already. Nothing "
            "was sent. Make it private in its settings, choose another name, or leave out private."
        )


def check_tag_is_free(target: HubTarget, api: HfApi) -> None:
    """A tag that is there already would be found only when the student is pushed.

    Args:
        target: where to push.
        api: the client.

    Raises:
        HubError: the repository has the tag.
    """
    if target.tag is None or is_private(api, target) is None:
        return
    if commit_of_tag(target, api) is not None:
        raise HubError(
            f"Expected the tag {target.tag} of {target.repo} to be free, got one that is there; a tag is never moved. "
            "Set push.tag to another."
        )


def commit_of_tag(target: HubTarget, api: HfApi) -> str | None:
    """The commit that has the target's tag.

    Args:
        target: in a repository that is there.
        api: the client.

    Returns:
        Its full hash; None if the tag is free.

    Raises:
        HubError: the Hub can't be asked.
    """
    with hub_errors(f"to look at the tags of {target.repo}"):
        tags = api.list_repo_refs(target.repo).tags
    return next((tag.target_commit for tag in tags if tag.name == target.tag), None)


def check_card(card: ModelCard) -> None:
    """Whether the Hub takes a card's metadata.

    Args:
        card: with its metadata.

    Raises:
        HubError: it does not, or can't be reached.
    """
    advice = "Correct push.license or push.language; the other keys come from the run's files."
    with hub_errors("metadata of the model card that the Hub takes", advice):
        card.validate()


def prepare_repository(target: HubTarget, api: HfApi) -> None:
    """Makes the repository and the branch, where they are missing.

    Args:
        target: where to push; `check_account` has passed.
        api: the client.

    Raises:
        HubError: the Hub refuses.
    """
    if is_private(api, target) is None:
        with hub_errors(f"to make the repository {target.repo}", _GET_TOKEN):
            api.create_repo(target.repo, private=target.private, exist_ok=True)
            api.auth_check(target.repo, write=True)
        kind = "private" if is_private(api, target) else "public"
        logger.info("push: made the %s repository %s/%s", kind, constants.ENDPOINT, target.repo)
    if target.revision and target.revision != constants.DEFAULT_REVISION:
        with hub_errors(f"to have the branch {target.revision} of {target.repo}"):
            api.create_branch(target.repo, branch=target.revision, exist_ok=True)


def is_on_hub(api: HfApi, repo: str) -> bool:
    """Whether the Hub has a repository of this name, as far as this account sees."""
    with hub_errors(f"to look at {repo}"):
        return api.repo_exists(repo)


def is_private(api: HfApi, target: HubTarget) -> bool | None:
    """Whether the student's repository is private.

    Args:
        api: the client.
        target: where to push.

    Returns:
        Whether it is; None if there is none that this account sees.

    Raises:
        HubError: the Hub can't be asked.
    """
    with hub_errors(f"to look at {target.repo}"):
        try:
            return bool(api.model_info(target.repo).private)
        except RepositoryNotFoundError:
            return None


def _whoami(api: HfApi) -> dict[str, Any]:
    with hub_errors(f"to reach {constants.ENDPOINT}", "Check the connection, and try again."):
        try:
            return api.whoami()
        except LocalTokenNotFoundError as error:
            raise HubError(f"Expected to be logged in to {constants.ENDPOINT}, got no token. {_GET_TOKEN}") from error
        except HfHubHTTPError as error:
            if error.response.status_code != 401:
                raise
            raise HubError(
                f"Expected a token that {constants.ENDPOINT} knows, got one that it refuses. {_GET_TOKEN}"
            ) from error


def _refuse_foreign_owner(target: HubTarget, account: Mapping[str, Any]) -> None:
    owner = target.repo.split("/")[0]
    roles = {organisation["name"]: organisation.get("roleInOrg") for organisation in account.get("orgs") or ()}
    if owner == account["name"] or (owner in roles and roles[owner] in {*_WRITING_ROLES, None}):
        return
    owners = [account["name"], *(name for name, role in roles.items() if role in {*_WRITING_ROLES, None})]
    raise HubError(
        f"Expected a repository of {' or '.join(owners)}, where this token may write, got {target.repo}. "
        "Check the name, or ask its owner for rights to write."
    )


def _said(error: Exception) -> str:
    """The first line of the client's message, or the server's own words."""
    said = getattr(error, "server_message", None) or str(error) or type(error).__name__
    status = getattr(getattr(error, "response", None), "status_code", None)
    words = " ".join(said.split())[:300].rstrip(".")
    return f"{words} ({status})" if status and str(status) not in words else words
