"""What a push would send, built and described; nothing is sent and the Hub is not asked."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants

from distilbert_kd.hub.facts import RunFacts
from distilbert_kd.hub.published import PublishedFolder, build_published
from distilbert_kd.hub.space import build_space
from distilbert_kd.hub.target import HubTarget
from distilbert_kd.run_folder import RunFolder


__all__ = ["describe_plan", "plan_push"]


def plan_push(run: Path, target: HubTarget) -> list[PublishedFolder]:
    """Builds what would be pushed, and sends nothing.

    Args:
        run: the folder of a finished run.
        target: where it would go.

    Returns:
        The folder, in `hub` of the run folder, and that of the Space, in `space`, if it is asked for.

    Raises:
        HubError: something in it may not be published.
        StorageError: it is no finished run, or the disk is at fault.
    """
    folder = RunFolder.open(run)
    facts = RunFacts.read(folder)
    spaces = [build_space(folder, facts, target)] if target.space else []
    return [build_published(folder, facts, target), *spaces]


def describe_plan(plan: Sequence[PublishedFolder], target: HubTarget) -> str:
    """What would be pushed, in lines.

    Args:
        plan: from `plan_push`.
        target: where it would go.

    Returns:
        The lines: each file with its size, and what stays here.
    """
    unasked = "public, unless an organisation that owns it has set otherwise; --private makes it private"
    kind = {True: "private", False: "public", None: unasked}[target.private]
    place = "a pull request" if target.create_pr else f"branch {target.revision or constants.DEFAULT_REVISION}"
    heads = [f"To {target.repo} (if new: {kind}), {place}{f', tag {target.tag}' if target.tag else ''}:"]
    heads.append(f"To the Space {target.repo} (if new: {kind}):")
    lines = []
    for head, published in zip(heads, plan, strict=False):  # a Space only if it is asked for
        lines.append(head)
        lines += [f"{size:>13,}  {name}" for name, size in published.sizes.items()]
        lines += [f"{sum(published.sizes.values()):>13,}  bytes in all"]
        if published.left_out:
            lines.append(f"Left out of the student's folder: {', '.join(published.left_out)}")
    folders = " and ".join(str(published.root) for published in plan)
    return "\n".join([*lines, f"Nothing was sent. To look at: {folders}"])
