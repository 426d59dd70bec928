"""The push, by the command line and the unmodified client, against a Hub on this machine that is strict."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distilbert_kd.errors import HubError
from distilbert_kd.hub import load_back as load_back_module
from distilbert_kd.hub import push as push_module
from distilbert_kd.hub.account import check_account
from distilbert_kd.hub.facts import RunFacts
from distilbert_kd.hub.load_back import LoadedBack
from distilbert_kd.hub.target import HubTarget
from distilbert_kd.run_folder import RunFolder
from tests.hub.client import ROOT, Client, hub_environment
from tests.hub.finished_runs import RECIPE, write_run
from tests.hub.loopback import Blob, Hub


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


@pytest.fixture(scope="module")
def loopback():
    with Hub() as hub:
        yield hub


@pytest.fixture
def hub(loopback):
    """The Hub, as new."""
    loopback.repositories.clear()
    loopback.faults.clear()
    loopback.log.clear()
    loopback.tokens_at_store.clear()
    return loopback


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """HF_HOME of the user."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def client(loopback, home):
    with Client(hub_environment(loopback.endpoint, home)) as client:
        yield client


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "made")


@pytest.fixture
def run(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def push(client, run, *options, repo="ada/tiny", load_back=False, **settings):
    checks = [] if load_back else ["--no-load-back"]
    return client.ask("push", run, "--repo", repo, *checks, *options, **settings)


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

    def test_twice_sends_nothing_again(self, client, hub, run):
        """A second push must cost no upload and leave no empty commit."""
        push(client, run)
        hub.log.clear()
        answer = push(client, run)
        assert answer.exit_code == 0, answer
        assert "Nothing had changed, nothing was sent" in answer.stdout
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
        assert "a tag is never moved" in refused(answer, run)
        assert repository.tags == {"v1.0": first}

    def test_pull_request_leaves_main_alone(self, client, hub, run):
        """Who asks for a review must not publish."""
        hub.create("bob/tiny")  # where only Bob may write
        answer = push(client, run, "--create-pr", repo="bob/tiny")
        assert answer.exit_code == 0, answer
        repository = hub.repositories["bob/tiny"]
        assert repository.trees[repository.branches["main"]].keys() == {".gitattributes"}
        assert repository.trees[repository.requests["refs/pr/1"]].keys() == PUBLISHED
        assert f"{hub.endpoint}/bob/tiny/discussions/1" in answer.stdout

    def test_dry_run_shows_all_and_sends_nothing(self, client, hub, run):
        """Who wants to look first must not have published by looking."""
        answer = push(client, run, "--dry-run", token=None)
        assert answer.exit_code == 0, answer
        assert set(re.findall(r"^ +[\d,]+  (\S+\.\S+)$", answer.stdout, re.MULTILINE)) == PUBLISHED - {
            ".gitattributes"
        }
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
        for _ in range(2):
            assert push(client, run, "--private").exit_code == 0
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
        assert "store PUT" not in hub.log

    def test_token_in_a_record(self, client, hub, run):
        """A token that somebody pasted into a name would be public."""
        recipe = (run / "recipe.yaml").read_text()
        secret = "hf_" + "A" * 34
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


class TestLoadBack:
    def test_says_that_the_same_model_came_back(self, client, hub, run):
        """What users will load is what was sent: by id and tag, with nothing in a cache, of a private repository."""
        answer = push(client, run, "--private", "--tag", "v1.0", load_back=True)
        assert answer.exit_code == 0, answer
        commit = hub.repositories["ada/tiny"].tags["v1.0"]
        assert f"Loaded back from ada/tiny at v1.0 ({commit[:8]}) into an empty cache" in answer.stdout
        assert "largest difference of a logit 0." in answer.stdout
        assert hub.tokens_at_store == []

    @pytest.mark.parametrize(("difference", "is_same_commit"), [(0.5, True), (float("nan"), True), (0.0, False)])
    def test_another_model_is_no_success(self, run, monkeypatch, difference, is_same_commit):
        """Weights of somebody else, or an older commit that a name still leads to."""
        commit = "c" * 40
        back = LoadedBack(commit if is_same_commit else "d" * 40, difference, 4)
        monkeypatch.setattr(push_module, "load_back", lambda *arguments: back)
        with pytest.raises(HubError, match="to be the student of"):
            push_module._check(RunFolder(run), RunFacts.read(RunFolder(run)), HubTarget("ada/tiny"), "main", commit)

    @pytest.mark.slow
    def test_another_model_gives_other_logits(self, client, hub, run):
        """A comparison of a model with itself would never find that the repository holds other weights."""
        push(client, run)
        repository = hub.repositories["ada/tiny"]
        tree = repository.trees[repository.branches["main"]]
        weights = bytearray(tree["model.safetensors"].content)
        weights[-8:] = b"\x00\x00\x80\x3f" * 2  # the last two numbers are 1
        blob = Blob(bytes(weights), True)
        repository.objects[blob.oid] = blob.content
        repository.branches["main"] = repository.add({**tree, "model.safetensors": blob}, "of somebody else")
        code = (
            "from pathlib import Path\n"
            "from distilbert_kd.hub.load_back import load_back\n"
            f"print(load_back('ada/tiny', 'main', Path({str(run / 'student')!r}), 32).largest_difference)"
        )
        assert float(client.ask(code=code).stdout) > 0.01

    @pytest.mark.slow
    def test_snippet_of_the_card_runs(self, client, hub, run, tmp_path):
        """The lines that every user copies, run as they are, with the Hub in place."""
        assert push(client, run).exit_code == 0
        repository = hub.repositories["ada/tiny"]
        card = repository.trees[repository.branches["main"]]["README.md"].content.decode()
        snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
        environment = hub_environment(hub.endpoint, tmp_path / "home")
        done = subprocess.run([sys.executable, "-c", snippet], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert re.match(r"\[\{'label': '(positive|negative)', 'score': 0\.\d+\}\]", done.stdout), done.stdout


class TestBeforeTraining:
    """What `run` asks of the Hub before it trains anything."""

    CODE = (
        "from distilbert_kd.hub.push import check_before_training\n"
        "from distilbert_kd.hub.target import HubTarget\n"
        "check_before_training({recipe!r}, HubTarget({target}))"
    )

    def ask(self, client, target, token="hf_write", recipe=RECIPE):
        return client.ask(code=self.CODE.format(recipe=recipe, target=target), token=token)

    def test_makes_the_repository_and_the_branch(self, client, hub):
        """Only making it shows for sure that one may; the name is taken until the training is done."""
        answer = self.ask(client, "'ada/tiny', private=True, revision='dev'")
        assert answer.exit_code == 0, answer.stderr
        assert hub.repositories["ada/tiny"].is_private
        assert hub.repositories["ada/tiny"].branches.keys() == {"main", "dev"}
        assert hub.repositories["ada/tiny"].messages == ["initial commit"]

    @pytest.mark.parametrize("token", ["hf_wrong", "hf_read", None])
    def test_wrong_tokens_cost_seconds(self, client, hub, token):
        """Hours of training would end in a push that can't be."""
        answer = self.ask(client, "'ada/tiny'", token)
        assert answer.exit_code == 1 and "HubError: Expected" in answer.stderr
        assert hub.repositories == {}

    def test_tag_that_is_taken(self, client, hub):
        """It would be found after the training, when the student is pushed and can't be tagged."""
        repository = hub.create("ada/tiny")
        repository.tags["v1"] = repository.branches["main"]
        answer = self.ask(client, "'ada/tiny', tag='v1'")
        assert answer.exit_code == 1 and "Expected the tag v1 of ada/tiny to be free" in answer.stderr
        assert self.ask(client, "'ada/tiny', tag='v2'").exit_code == 0

    def test_metadata_that_the_hub_refuses(self, client, hub):
        """A licence that the Hub does not know."""
        answer = self.ask(client, "'ada/tiny', license='wtf'")
        assert answer.exit_code == 1 and '"license" must be one of' in answer.stderr
        assert hub.repositories == {}

    def test_hub_that_can_not_be_reached(self, client):
        """No network is no reason for a traceback of four libraries."""
        code = (
            "from huggingface_hub import HfApi\nfrom distilbert_kd.hub.account import check_account\n"
            "from distilbert_kd.hub.target import HubTarget\n"
            "check_account(HubTarget('ada/tiny'), HfApi(endpoint='http://127.0.0.1:9'))"
        )
        answer = client.ask(code=code)
        assert re.search(
            r"HubError: Expected to reach http\S+, got: .*Check the connection, and try again", answer.stderr
        )

    def test_offline(self, monkeypatch):
        """A forgotten HF_HUB_OFFLINE is named, in place of a connection that failed."""
        monkeypatch.setenv("HF_TOKEN", "hf_any")
        with pytest.raises(HubError, match="HF_HUB_OFFLINE is set. Unset it"):
            check_account(HubTarget("ada/tiny"))


def test_stored_login_is_enough(client, hub, run, home):
    """`hf auth login` keeps the token in HF_HOME; who has done that needs no variable."""
    (home / "token").write_text("hf_write")
    try:
        assert push(client, run, token=None).exit_code == 0
    finally:
        (home / "token").unlink()


def test_token_reaches_the_fresh_process_by_its_environment(monkeypatch, tmp_path):
    """Its HF_HOME is empty, so the stored login is not there; on the command line everybody could read the token."""
    seen = {}

    def record(command, env, input, **options):
        seen.update(command=command, env=env, input=input, files=list(Path(env["HF_HOME"]).iterdir()))
        answer = {"commit": "c" * 40, "largest_difference": 0.0, "num_texts": 4}
        return subprocess.CompletedProcess(command, 0, f"noise\ndistilbert_kd:{json.dumps(answer)}\n", "")

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(load_back_module, "get_token", lambda: "hf_secret")
    monkeypatch.setattr(subprocess, "run", record)
    assert load_back_module.load_back("ada/tiny", "main", tmp_path, 32).num_texts == 4
    assert seen["env"]["HF_TOKEN"] == "hf_secret" and "HF_HUB_CACHE" not in seen["env"]
    assert seen["files"] == [] and not Path(seen["env"]["HF_HOME"]).exists()
    assert "hf_secret" not in " ".join(seen["command"]) + seen["input"]


def test_card_passes_the_clients_own_validation(client, hub, run):
    """`ModelCard.validate` is what others call before they copy the card."""
    assert client.ask("card", run, "--repo", "ada/tiny").exit_code == 0
    card = run / "student/README.md"
    answer = client.ask(code=f"from huggingface_hub import ModelCard\nModelCard.load({str(card)!r}).validate()")
    assert answer.exit_code == 0, answer.stderr
    assert hub.log == ["POST /api/validate-yaml"]
