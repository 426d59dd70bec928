"""What the repository holds already: whether a push would change it, and what an earlier student left there."""

from collections.abc import Mapping

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

from distilbert_kd.errors import HubError
from distilbert_kd.hub.account import commit_of_tag, hub_errors
from distilbert_kd.hub.published import PublishedFolder, may_go_out
from distilbert_kd.hub.target import HubTarget
from distilbert_kd.storage import sha256_of


__all__ = ["check_tag", "files_on_hub", "stale_files"]


def files_on_hub(api: HfApi, target: HubTarget) -> dict[str, RepoFile]:
    """The files of the branch.

    Args:
        api: the client.
        target: in a repository that is there.

    Returns:
        Each by its place.

    Raises:
        HubError: the Hub can't be asked.
    """
    with hub_errors(f"to look at the files of {target.repo}"):
        entries = api.list_repo_tree(target.repo, revision=target.revision, recursive=True)
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def stale_files(files: Mapping[str, RepoFile], published: PublishedFolder) -> list[str]:
    """Files that an earlier student left: beside the new weights, `from_pretrained` or a user would take them for its.

    Args:
        files: of the branch.
        published: what is to be there.

    Returns:
        Those that a push may have sent, and this one does not send.
    """
    return sorted(name for name in files if may_go_out(name) and name not in published.sizes)


def check_tag(
    api: HfApi, target: HubTarget, head: str | None, files: Mapping[str, RepoFile], published: PublishedFolder
) -> None:
    """A tag may be there only if the push will change nothing of what it names: looked at before anything is sent.

    Args:
        api: the client.
        target: where to push.
        head: the branch's newest commit.
        files: of the branch.
        published: what is to be there.

    Raises:
        HubError: the tag names something else.
    """
    tagged = commit_of_tag(target, api) if target.tag else None
    if tagged is None:
        return
    is_head = tagged == head and not stale_files(files, published)  # before all files are hashed
    if not (is_head and all(_is_same(files, published, name) for name in published.sizes)):
        raise HubError(
            f"Expected the tag {target.tag} of {target.repo} to be free, got one of something else, at {tagged[:8]}. "
            "Nothing was sent. A tag is never moved: choose another."
        )


def _is_same(files: Mapping[str, RepoFile], published: PublishedFolder, name: str) -> bool:
    """Whether the Hub has the file's bytes: by the SHA-256 of a large file, and git's name of a small one."""
    if name not in files:
        return False
    there, path = files[name], published.root / name
    if there.lfs is not None:
        return there.lfs.sha256 == sha256_of(path)
    return there.blob_id == git_hash(path.read_bytes())
