"""The push, by the command line and the unmodified client, against a Hub on this machine that is strict."""

import re
import signal
import subprocess
import sys

import pytest

from tests.hub.client import ROOT, hub_environment, push
from tests.hub.finished_runs import PRIVATE, RECIPE, write_run
from tests.hub.loopback import Blob


PUBLISHED = {
    ".gitattributes",  # of the Hub
    "README.md",
    "config.json",
    "model.safetensors",
    "plots/scores.png",
    "recipe.yaml",
    "results.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
SENDING = re.compile(r"POST .*/(commit|objects/batch)|store PUT")


def refused(answer, run) -> str:
    """The message of a push that failed as it should: one message, a way on, and a run that is whole."""
    assert answer.exit_code == 5, answer
    assert "Traceback" not in answer.stderr
    assert len(re.findall(r"^error: ", answer.stderr, re.MULTILINE)) == 1
    assert f"push it later: distilbert-kd push {run} --repo " in answer.stderr
    assert "hf_" not in answer.stdout + answer.stderr
    assert (run / "results.json").is_file() and (run / "student/model.safetensors").is_file()
    return answer.stderr


class TestPush:
    def test_one_commit_of_what_may_go_out(self, client, hub, run):
        """A pickle, an optimizer, a log or the teacher in a public repository can't be taken back."""
        answer = push(client, run)
        assert answer.exit_code == 0, answer
        assert "made the public repository" in answer.stderr
        repository = hub.repositories["ada/tiny"]
        assert repository.messages == ["initial commit", "Add student of 2 layers, distilled on tiny"]
        tree = repository.trees[repository.branches["main"]]
        assert tree.keys() == PUBLISHED
        assert tree["model.safetensors"].content == (run / "student/model.safetensors").read_bytes()
        assert tree["README.md"].content == (run / "hub/README.md").read_bytes()
        assert f"Pushed: {hub.endpoint}/ada/tiny/commit/{repository.branches['main']}" in answer.stdout

    def test_token_goes_to_the_hub_and_nowhere_else(self, client, hub, run):
        """The store of large files belongs to somebody else; a token that it sees can write as the user."""
        push(client, run)
        assert hub.log.count("store PUT") == 3 and hub.tokens_at_store == []
        published = hub.repositories["ada/tiny"].trees[hub.repositories["ada/tiny"].branches["main"]]
        assert not any(b"hf_write" in blob.content for blob in published.values())

    def test_no_place_of_this_machine_is_published(self, client, hub, run):
        """Recipe, results and card would tell the world the author's login and folders."""
        push(client, run)
        tree = hub.repositories["ada/tiny"].trees[hub.repositories["ada/tiny"].branches["main"]]
        for name, blob in tree.items():
            assert b"someone" not in blob.content and str(run).encode() not in blob.content, name
        assert b"train.jsonl" in tree["recipe.yaml"].content

    def test_nothing_private_is_published(self, client, hub, run):
        """Scored rows, predictions and reports hold texts that may not be the user's to publish."""
        private = [path for path in run.rglob("*") if path.is_file() and PRIVATE.encode() in path.read_bytes()]
        assert len(private) == 19  # or there is nothing to find
        assert push(client, run, "--space").exit_code == 0
        for repository in hub.repositories.values():
            sent = [blob.content for tree in repository.trees.values() for blob in tree.values()]
            assert PRIVATE.encode() not in b"".join([*sent, *repository.objects.values()])

    def test_twice_sends_nothing_again(self, client, hub, run):
        """A second push must cost no upload and leave no empty commit."""
        push(client, run)
        hub.log.clear()
        answer = push(client, run)
        assert answer.exit_code == 0, answer
        assert "The student had not changed and was not sent again: " in answer.stdout
        assert len(hub.repositories["ada/tiny"].messages) == 2
        assert [line for line in hub.log if line == "store PUT" or "/commit/" in line] == []

    def test_changed_card_is_sent_without_weights(self, client, hub, run):
        """A corrected licence must not upload hundreds of megabytes again."""
        push(client, run)
        hub.log.clear()
        answer = push(client, run, "--license", "mit")
        assert answer.exit_code == 0 and "Pushed" in answer.stdout
        assert "store PUT" not in hub.log
        repository = hub.repositories["ada/tiny"]
        assert b"license: mit" in repository.trees[repository.branches["main"]]["README.md"].content

    def test_missing_branch_is_made(self, client, hub, run):
        """`upload_folder` of the client ends with RevisionNotFound after all the training."""
        answer = push(client, run, "--revision", "dev")
        assert answer.exit_code == 0, answer
        repository = hub.repositories["ada/tiny"]
        assert repository.trees[repository.branches["dev"]].keys() == PUBLISHED
        assert repository.trees[repository.branches["main"]].keys() == {".gitattributes"}
        assert b'revision="dev"' in repository.trees[repository.branches["dev"]]["README.md"].content

    def test_tag_names_the_commit_and_is_never_moved(self, client, hub, run):
        """Who loads v1.0 must get the same weights for ever."""
        assert push(client, run, "--tag", "v1.0").exit_code == 0
        repository = hub.repositories["ada/tiny"]
        first = repository.branches["main"]
        assert repository.tags == {"v1.0": first}
        assert push(client, run, "--tag", "v1.0").exit_code == 0  # the same commit: nothing to complain of
        answer = push(client, run, "--tag", "v1.0", "--license", "mit")
        assert "Nothing was sent. A tag is never moved" in refused(answer, run)
        assert (repository.tags, repository.branches) == ({"v1.0": first}, {"main": first})

    def test_tag_of_an_older_commit(self, client, hub, run):
        """The tag is found before main changes: its card would say that v1.0 loads what it does not."""
        assert push(client, run, "--tag", "v1.0").exit_code == 0
        assert push(client, run, "--license", "mit").exit_code == 0
        repository = hub.repositories["ada/tiny"]
        branches = dict(repository.branches)
        assert "Nothing was sent" in refused(push(client, run, "--tag", "v1.0"), run)
        assert repository.branches == branches and repository.tags["v1.0"] != branches["main"]

    def test_files_of_an_earlier_student_are_taken_out(self, client, hub, run):
        """An export of the student before stays beside the new weights, and answers otherwise; others' files stay."""
        (run / "onnx/model.onnx").write_bytes(b"the student before")
        assert push(client, run).exit_code == 0
        repository = hub.repositories["ada/tiny"]
        by_hand = Blob(b"of the owner", False)
        tree = {**repository.trees[repository.branches["main"]], "NOTES.md": by_hand, "old/config.json": by_hand}
        repository.branches["main"] = repository.add(tree, "by hand")
        (run / "onnx/model.onnx").unlink()
        answer = push(client, run)
        assert answer.exit_code == 0, answer
        assert "Taken out, as of an earlier student: onnx/model.onnx" in answer.stdout.splitlines()
        assert "Pushed: " in answer.stdout
        assert repository.trees[repository.branches["main"]].keys() == {*PUBLISHED, "NOTES.md", "old/config.json"}
        assert len(repository.messages) == 4  # in the same commit

    def test_pull_request_leaves_main_alone(self, client, hub, run):
        """Who asks for a review must not publish."""
        hub.create("bob/tiny")  # where only Bob may write
        answer = push(client, run, "--create-pr", repo="bob/tiny")
        assert answer.exit_code == 0, answer
        repository = hub.repositories["bob/tiny"]
        assert repository.trees[repository.branches["main"]].keys() == {".gitattributes"}
        assert repository.trees[repository.requests["refs/pr/1"]].keys() == PUBLISHED
        assert f"{hub.endpoint}/bob/tiny/discussions/1" in answer.stdout

    def test_pull_request_of_what_is_there_already(self, client, hub, run):
        """Who reads "Pushed" looks for a request that was never opened."""
        push(client, run)
        answer = push(client, run, "--create-pr")
        assert answer.exit_code == 0, answer
        assert "had not changed and was not sent again" in answer.stdout and "Pushed" not in answer.stdout
        assert hub.repositories["ada/tiny"].requests == {}

    def test_dry_run_shows_all_and_sends_nothing(self, client, hub, run):
        """Who wants to look first must not have published by looking."""
        answer = push(client, run, "--dry-run", token=None)
        assert answer.exit_code == 0, answer
        assert set(re.findall(r"^ +[\d,]+  (\S+\.\S+)$", answer.stdout, re.MULTILINE)) == PUBLISHED - {
            ".gitattributes"
        }
        assert "(if new: public, unless an organisation" in answer.stdout and "--private makes it" in answer.stdout
        assert "Left out of the student's folder: .cache, notes.txt, optimizer.pt, training_args.bin" in answer.stdout
        assert hub.log == []
        assert {path.relative_to(run / "hub").as_posix() for path in (run / "hub").rglob("*") if path.is_file()} == (
            PUBLISHED - {".gitattributes"}
        )

    @pytest.mark.parametrize("options", [[], ["--dry-run"]])
    def test_card_in_the_students_folder_stays(self, client, hub, run, options):
        """Its owner may have written more into it; a push, and a look at one, write to `hub` alone."""
        (run / "student/README.md").write_text("By hand.")
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        assert push(client, run, *options).exit_code == 0
        after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        assert {path: content for path, content in after.items() if run / "hub" not in path.parents} == before
        assert "# tiny" in (run / "hub/README.md").read_text().splitlines()

    def test_what_is_behind_a_link_stays_here(self, client, hub, run, tmp_path):
        """A folder or file that is linked into the run may be anybody's."""
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "private.json").write_text("{}")
        (run / "exports").symlink_to(elsewhere)
        (run / "student/vocab.txt").symlink_to(elsewhere / "private.json")
        assert push(client, run, "--dry-run").exit_code == 0
        assert not (run / "hub/exports").exists() and not (run / "hub/vocab.txt").exists()

    def test_recipe_says_where_to(self, client, hub, tmp_path):
        """A push that failed after the run is repeated without typing its options again."""
        run = write_run(tmp_path / "run", {**RECIPE, "push": {"repo": "ada/named", "private": True, "tag": "v2"}})
        assert client.ask("push", run, "--no-load-back").exit_code == 0
        repository = hub.repositories["ada/named"]
        assert repository.is_private and repository.tags.keys() == {"v2"}
        assert b"ada/named" not in repository.trees[repository.tags["v2"]]["recipe.yaml"].content


class TestRefused:
    def test_wrong_token(self, client, hub, run):
        """A wrong token is told apart from a missing repository, and nothing is tried with it."""
        message = refused(push(client, run, token="hf_wrong"), run)
        assert f"Expected a token that {hub.endpoint} knows, got one that it refuses" in message
        assert f"{hub.endpoint}/settings/tokens" in message and "HF_TOKEN" in message
        assert hub.log == ["GET /api/whoami-v2"]

    def test_no_token(self, client, hub, run):
        """Without a login the message says how to log in."""
        assert "got no token" in refused(push(client, run, token=None), run)
        assert hub.log == []

    def test_read_only_token(self, client, hub, run):
        """A read-only token passes whoami; it would fail after the upload was prepared."""
        assert "got a read-only one of ada" in refused(push(client, run, token="hf_read"), run)
        assert hub.repositories == {}

    @pytest.mark.parametrize("repo", ["bob/tiny", "guild/tiny", "nobody/tiny"])
    def test_repository_of_others(self, client, hub, run, repo):
        """A typing error in the owner's name is found before anything is sent."""
        assert f"Expected a repository of ada or lab, where this token may write, got {repo}" in refused(
            push(client, run, repo=repo), run
        )
        assert not any(SENDING.search(line) for line in hub.log)

    def test_existing_repository_of_others(self, client, hub, run):
        """`create_repo(exist_ok=True)` hides that one may only read there."""
        hub.create("bob/tiny")
        assert "to be allowed to write to bob/tiny as ada" in refused(push(client, run, repo="bob/tiny"), run)
        assert not any(SENDING.search(line) for line in hub.log)

    def test_private_push_to_a_public_repository(self, client, hub, run):
        """The client ignores `private` for a repository that exists: the weights would be public."""
        hub.create("ada/tiny")
        assert "to be private, as asked, got a public repository" in refused(push(client, run, "--private"), run)
        assert not any(SENDING.search(line) for line in hub.log)
        assert hub.repositories["ada/tiny"].messages == ["initial commit"]

    def test_private_repository_is_made_private(self, client, hub, run):
        """And stays so when it is pushed to again."""
        for made in (True, False):
            answer = push(client, run, "--private")
            assert answer.exit_code == 0 and ("made the private repository" in answer.stderr) is made
        assert hub.repositories["ada/tiny"].is_private

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--repo", "tiny"], "push.repo: expected owner/name"),
            (["--repo", "ada/ti ny"], "push.repo: expected owner/name"),
            (["--repo", "ada/tiny", "--create-pr", "--revision", "dev"], "push.revision: not allowed with create_pr"),
            (["--repo", "ada/tiny", "--tag", "v 1"], "push.tag: expected a name that git takes"),
        ],
    )
    def test_impossible_requests(self, client, hub, run, options, message):
        """What can't be is said before the Hub is asked."""
        answer = client.ask("push", run, *options)
        assert answer.exit_code == 5 and message in answer.stderr
        assert hub.log == []

    def test_unknown_license(self, client, hub, run):
        """Metadata that the Hub refuses must stop the push before the weights travel."""
        message = refused(push(client, run, "--license", "wtf"), run)
        assert '"license" must be one of' in message
        assert "store PUT" not in hub.log and hub.repositories == {}  # no empty one is left

    @pytest.mark.parametrize(
        "start", ["hf_", "hf_oauth_", "hf_jwt_", "my_hf_", "api_org_", "token=hf_", "hf_oauth_eyJh.", "hf_a-"]
    )
    def test_token_in_a_record(self, client, hub, run, start):
        """A token that somebody pasted into a name would be public."""
        recipe = (run / "recipe.yaml").read_text()
        secret = start + "A" * 34
        (run / "recipe.yaml").write_text(recipe.replace("name: tiny", f"name: tiny-{secret}"))
        answer = push(client, run)
        assert answer.exit_code == 5 and "looks like a token" in answer.stderr
        assert secret not in answer.stderr
        assert not any(SENDING.search(line) for line in hub.log)


class TestFaults:
    @pytest.mark.parametrize(("fault", "times"), [("cut in the PUT", 1), ("503 at the store", 2)])
    def test_faults_that_pass_are_survived(self, client, hub, run, fault, times):
        """A connection that breaks in the middle, or a busy server, must not end a push."""
        hub.faults[fault] = times
        answer = push(client, run)
        assert answer.exit_code == 0, answer
        assert hub.log.count("store PUT") == 3 + times
        repository = hub.repositories["ada/tiny"]
        assert repository.trees[repository.branches["main"]].keys() == PUBLISHED

    def test_fault_at_the_commit_publishes_nothing_and_a_rerun_sends_no_weights(self, client, hub, run):
        """After a 500 the repository is as it was; the same command goes on where it ended."""
        hub.faults["500 at the commit"] = 1
        refused(push(client, run), run)
        assert hub.repositories["ada/tiny"].messages == ["initial commit"]
        hub.log.clear()
        assert push(client, run).exit_code == 0
        assert "store PUT" not in hub.log
        assert len(hub.repositories["ada/tiny"].messages) == 2

    def test_killed_client_publishes_nothing_and_a_rerun_completes(self, client, hub, run, tmp_path):
        """A machine that dies in the middle of an upload must leave no half model."""
        hub.faults["stall in the PUT"] = 9
        hub.in_put.clear()
        environment = hub_environment(hub.endpoint, tmp_path / "home", HF_TOKEN="hf_write")
        command = [sys.executable, "-m", "distilbert_kd", "push", str(run), "--repo", "ada/tiny", "--no-load-back"]
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL)
        assert hub.in_put.wait(60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        hub.faults.clear()
        assert hub.repositories["ada/tiny"].messages == ["initial commit"]
        assert push(client, run).exit_code == 0
        repository = hub.repositories["ada/tiny"]
        assert repository.trees[repository.branches["main"]].keys() == PUBLISHED


def test_stored_login_is_enough(client, hub, run, home):
    """`hf auth login` keeps the token in HF_HOME; who has done that needs no variable."""
    (home / "token").write_text("hf_write")
    try:
        assert push(client, run, token=None).exit_code == 0
    finally:
        (home / "token").unlink()
