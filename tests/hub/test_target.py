"""Where a push goes: what is wrong is said before anybody is asked."""

from pathlib import Path

import pytest

from distilbert_kd.errors import HubError
from distilbert_kd.hub.target import HubTarget, target_problems


@pytest.mark.parametrize("repo", ["ada/tiny", "a/b", "Ada-1/x_y.z-2"])
def test_good_names(repo):
    """A name that the Hub takes must not be refused here."""
    assert target_problems({"repo": repo}) == []


@pytest.mark.parametrize(
    "repo", ["tiny", "a/b/c", "ada/", "/tiny", "a b/c", "a/b--c", "a/b..c", "a/b.git", "a/" + "x" * 96]
)
def test_bad_names(repo):
    """Each is refused by the Hub, after the training if not here."""
    (problem,) = target_problems({"repo": repo})
    assert problem.startswith("push.repo: expected owner/name")
    assert problem.split(": ")[-1].startswith(("it ", "a name ")), "a name that looks right must be told what is wrong"


def test_the_fault_of_a_name_is_said():
    """ada/movie..reviews is of the letters that the message allows."""
    assert target_problems({"repo": "ada/movie..reviews"})[0].endswith('got "ada/movie..reviews": it holds ".."')


def test_names_are_judged_as_the_client_does():
    """The client's own check is the oracle for what it would refuse."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    for name in ("tiny.", "-tiny", "a..b", "a--b", "x" * 97, "tiny.git", "t!"):
        with pytest.raises(HFValidationError):
            validate_repo_id(f"ada/{name}")
        assert target_problems({"repo": f"ada/{name}"}), name


def test_options_win_over_the_recipe():
    """`push RUN --tag v2` after a recipe with v1 must not move or repeat v1."""
    target = HubTarget.of({"repo": "ada/tiny", "tag": "v1", "private": True}, {"tag": "v2", "private": None})
    assert target == HubTarget("ada/tiny", private=True, tag="v2")


def test_all_problems_in_one_message():
    """One at a time costs a try each."""
    with pytest.raises(HubError) as caught:
        HubTarget.of({"repo": "x", "tag": "a..b", "license": "No License"})
    assert [key for key in ("push.repo", "push.tag", "push.license") if key not in str(caught.value)] == []


def test_command_says_the_same_again():
    """What is shown after a failed push must push the same to the same place."""
    target = HubTarget("ada/tiny", private=True, revision="dev", tag="v1", license="mit", language="en")
    command = target.command(Path("runs/a b"))
    assert command == (
        "distilbert-kd push 'runs/a b' --repo ada/tiny --private --revision dev --tag v1 --license mit --language en"
    )
    assert HubTarget("ada/tiny", private=False).command(Path("r")).endswith("--repo ada/tiny --public")
    assert HubTarget("ada/tiny", create_pr=True).command(Path("r")).endswith("--repo ada/tiny --create-pr")
