"""The page to try a student, as a Space: what is in the folder, and its way to the Hub."""

import json
import re
from pathlib import Path

import pytest
import yaml

from distilbert_kd.hub.space import GRADIO_VERSION
from tests.hub.client import ROOT, push
from tests.hub.finished_runs import PRIVATE, RECIPE, write_run


SPACE = {".gitattributes", "README.md", "app.py", "page.json", "requirements.txt"}
FROM_HUB = {**RECIPE, "teacher": {"model": "ada/teacher", "labels": ["no", "yes"]}}


def tree_of(hub, name: str) -> dict[str, bytes]:
    repository = hub.repositories[name]
    return {path: blob.content for path, blob in repository.trees[repository.branches["main"]].items()}


def test_space_goes_out_beside_the_student(client, hub, run):
    """Who asks for a page gets one that loads the student by its id, with the sdk that the Hub needs to start it."""
    answer = push(client, run, "--space", "--tag", "v1.0", "--license", "mit")
    assert answer.exit_code == 0, answer
    assert f"The page to try it: {hub.endpoint}/spaces/ada/tiny" in answer.stdout
    tree = tree_of(hub, "spaces/ada/tiny")
    assert tree.keys() == SPACE
    metadata = yaml.safe_load(tree["README.md"].decode().split("---")[1])
    assert metadata["sdk"] == "gradio" and metadata["sdk_version"] == GRADIO_VERSION
    assert (metadata["app_file"], metadata["models"], metadata["license"]) == ("app.py", ["ada/tiny"], "mit")
    settings = json.loads(tree["page.json"])
    assert settings["student"] == {"model": "ada/tiny", "revision": "v1.0"}
    assert settings["teacher"] is None  # it was fine-tuned in the run, and is not published
    assert "model.safetensors" in tree_of(hub, "ada/tiny")


def test_first_space_of_a_student_that_is_there(client, hub, run):
    """Beside a page that was made this second, a message that nothing was sent is untrue."""
    assert push(client, run).exit_code == 0
    answer = push(client, run, "--space")
    assert answer.exit_code == 0 and "hing was sent" not in answer.stdout
    assert "The student had not changed and was not sent again: " in answer.stdout
    assert "The page to try it: " in answer.stdout


def test_space_is_the_page_that_runs_here(client, hub, run):
    """Two sources of one page drift apart, and only one of them is tested."""
    assert push(client, run, "--space", "--dry-run").exit_code == 0
    app = (run / "space/app.py").read_bytes()
    assert app == (ROOT / "distilbert_kd/demo_app/page.py").read_bytes()
    assert not re.search(rb"^\s*(from|import) distilbert_kd", app, re.MULTILINE)


def test_space_needs_published_versions(client, hub, run):
    """torch==2.13.0+cpu is on no index that a Space asks by default; CUDA is gigabytes that its CPU can't use."""
    record = json.loads((run / "environment.json").read_text())
    record["versions"] |= {"torch": "2.13.0+cpu", "transformers": "5.23.0"}
    (run / "environment.json").write_text(json.dumps(record))
    assert push(client, run, "--space", "--dry-run").exit_code == 0
    assert (run / "space/requirements.txt").read_text().splitlines() == [
        "--extra-index-url https://download.pytorch.org/whl/cpu",
        "torch==2.13.0",
        "transformers==5.23.0",
    ]


def test_teacher_of_the_hub_is_named_with_its_commit(client, hub, tmp_path):
    """The page would compare with whatever the teacher's owner has pushed since, in another order of labels."""
    hub.create("ada/teacher")
    commit = "c" * 40
    run = write_run(tmp_path / "run", FROM_HUB, environment={"teacher": {"model": "ada/teacher", "commit": commit}})
    assert push(client, run, "--space").exit_code == 0
    settings = json.loads(tree_of(hub, "spaces/ada/tiny")["page.json"])
    assert settings["teacher"] == {"model": "ada/teacher", "revision": commit, "labels": ["no", "yes"]}


def test_nothing_of_the_run_but_its_names(client, hub, run):
    """Rows of the data may not be the user's to publish, and a path tells the world the author's login."""
    assert push(client, run, "--space").exit_code == 0
    for name, content in tree_of(hub, "spaces/ada/tiny").items():
        assert b"someone" not in content and str(run).encode() not in content, name
        assert PRIVATE.encode() not in content, name
    assert "rows" not in json.loads((run / "space/page.json").read_text())


def test_dry_run_shows_both_and_sends_nothing(client, hub, run):
    """Who wants to look first must see all that would go out."""
    answer = push(client, run, "--space", "--dry-run", token=None)
    assert answer.exit_code == 0, answer
    assert "To the Space ada/tiny" in answer.stdout and re.search(r"[\d,]+  app\.py$", answer.stdout, re.MULTILINE)
    assert f"To look at: {run / 'hub'} and {run / 'space'}" in answer.stdout
    assert hub.log == []


def test_private_page_is_not_put_on_a_public_space(client, hub, run):
    """A page on a public Space shows a private student to everyone; nothing may have been sent by then."""
    hub.create("spaces/ada/tiny")
    answer = push(client, run, "--space", "--private")
    assert answer.exit_code == 5 and "Expected the Space ada/tiny to be private" in answer.stderr
    assert f"push it later: distilbert-kd push {run} --repo ada/tiny --private --space" in answer.stderr
    assert "ada/tiny" not in hub.repositories


def test_private_push_makes_a_private_space(client, hub, run):
    """The other half: a new Space is as private as the student."""
    assert push(client, run, "--space", "--private").exit_code == 0
    assert hub.repositories["spaces/ada/tiny"].is_private


@pytest.mark.parametrize("options", [[], ["--public"]])
def test_space_of_a_private_student_is_private(client, hub, run, options):
    """The second push does not say --private again: its page would show the student to everyone."""
    assert push(client, run, "--private").exit_code == 0
    assert push(client, run, "--space", *options).exit_code == 0
    assert hub.repositories["spaces/ada/tiny"].is_private


def test_public_space_of_a_private_student_is_refused(client, hub, run):
    """As above, with a Space that is there already."""
    hub.create("ada/tiny", is_private=True)
    hub.create("spaces/ada/tiny")
    answer = push(client, run, "--space")
    assert answer.exit_code == 5 and "Expected the Space ada/tiny to be private, as the student is" in answer.stderr
    assert hub.repositories["ada/tiny"].messages == hub.repositories["spaces/ada/tiny"].messages == ["initial commit"]


def test_twice_sends_nothing_again(client, hub, run):
    """An empty commit restarts the Space for nothing."""
    for _ in range(2):
        assert push(client, run, "--space").exit_code == 0
    assert len(hub.repositories["spaces/ada/tiny"].messages) == 2


@pytest.mark.parametrize("options", [["--create-pr"]])
def test_not_with_a_pull_request(client, hub, run, options):
    """The page would load a student that is not there yet."""
    answer = push(client, run, "--space", *options)
    assert answer.exit_code == 5 and "push.space: not allowed with create_pr" in answer.stderr
    assert hub.log == []


def test_recipe_asks_for_a_space(client, hub, tmp_path):
    """What a recipe says under push counts when the run is pushed again."""
    run = write_run(tmp_path / "run", {**RECIPE, "push": {"repo": "ada/named", "space": True}})
    assert client.ask("push", run, "--no-load-back").exit_code == 0
    assert tree_of(hub, "spaces/ada/named").keys() == SPACE


def test_gradio_of_the_space_is_the_one_that_is_tested():
    """The page is tested with the pinned version; the Space would start with another."""
    assert f"gradio=={GRADIO_VERSION}" in Path(ROOT / "constraints.txt").read_text().splitlines()
