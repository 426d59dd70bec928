"""What was pushed is loaded back as a user would, and another model is no success."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from distilbert_kd.errors import HubError
from distilbert_kd.hub import load_back as load_back_module
from distilbert_kd.hub import push as push_module
from distilbert_kd.hub.facts import RunFacts
from distilbert_kd.hub.load_back import LoadedBack
from distilbert_kd.hub.target import HubTarget
from distilbert_kd.run_folder import RunFolder
from tests.hub.client import hub_environment, push
from tests.hub.loopback import Blob


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
