"""What is asked of the Hub before a run trains anything: who is this, may they write there, is the card taken?"""

import re

import pytest
from huggingface_hub import HfApi

from distilbert_kd.errors import HubError
from distilbert_kd.hub.account import check_account
from distilbert_kd.hub.target import HubTarget
from tests.hub.finished_runs import RECIPE


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

    def test_public_space_of_a_private_student(self, client, hub):
        """It would be found after the training; the page of a private student may not be public."""
        hub.create("spaces/ada/tiny")
        answer = self.ask(client, "'ada/tiny', private=True, space=True")
        assert answer.exit_code == 1 and "Expected the Space ada/tiny to be private" in answer.stderr
        assert "ada/tiny" not in hub.repositories

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
            check_account(HubTarget("ada/tiny"), HfApi())
