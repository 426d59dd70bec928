"""The model card: its figures are those of the run folder, and what the run does not know is not in it."""

import json
import os
import re
import shutil
from math import sqrt
from pathlib import Path
from statistics import NormalDist

import pytest
import yaml
from huggingface_hub import ModelCard

from distilbert_kd.hub.card import make_card, planned_card, write_card
from distilbert_kd.hub.card_tables import _wilson_interval
from distilbert_kd.hub.facts import RunFacts
from distilbert_kd.hub.target import HubTarget
from distilbert_kd.markdown import code, escaped, fenced
from distilbert_kd.run_folder import RunFolder
from tests.hub.finished_runs import RECIPE, model_record, results_of, write_run
from tests.hub.loopback import metadata_errors


GLUE = {
    **RECIPE,
    "data": {"task": "rte", "max_length": 128},
    "teacher": {"model": "google-bert/bert-base-uncased", "finetune": {}},
}


def facts_of(folder: Path, recipe=RECIPE, **changes) -> RunFacts:
    return RunFacts.read(RunFolder(write_run(folder / "run", recipe, **changes)))


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> RunFacts:
    """A run whose teacher and data are on this machine alone."""
    return facts_of(tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="module")
def glue(tmp_path_factory) -> RunFacts:
    return facts_of(tmp_path_factory.mktemp("glue"), GLUE, metric="rte", task="rte")


class TestMetadata:
    def test_figures_are_those_of_the_results(self, local):
        """A card with other figures than the run's is a false claim that machines repeat."""
        results = yaml.safe_load(make_card(local, "ada/tiny").data.to_yaml())["model-index"][0]["results"]
        assert [(each["dataset"]["split"], each["metrics"][0]["type"]) for each in results] == [
            ("validation", "accuracy")
        ]
        metrics = {metric["name"]: metric["value"] for each in results for metric in each["metrics"]}
        assert metrics == {"Accuracy": 0.855, "macro F1": 0.85}

    def test_local_teacher_and_data_are_not_made_up(self, local):
        """The Hub refuses a path as base_model, and a data set of that name would be somebody else's."""
        data = make_card(local, "ada/tiny").data.to_dict()
        assert data.keys() == {"library_name", "metrics", "model-index", "pipeline_tag", "tags"}
        assert data["tags"] == ["knowledge-distillation", "bert"]

    def test_what_is_on_the_hub_is_named(self, glue):
        """Without base model, data set and teacher the Hub shows no relation, and nobody finds where it came from."""
        data = make_card(glue, "ada/rte", license="apache-2.0").data.to_dict()
        assert data["base_model"] == data["teacher_model"] == "google-bert/bert-base-uncased"
        assert data["base_model_relation"] == "finetune"
        assert (data["datasets"], data["language"], data["license"]) == (["nyu-mll/glue"], "en", "apache-2.0")
        assert data["model-index"][0]["results"][0]["dataset"] == {
            "name": "GLUE RTE",
            "type": "nyu-mll/glue",
            "config": "rte",
            "split": "validation",
        }

    def test_base_is_what_the_weights_were_started_from(self, tmp_path):
        """A student that was cut from another model is no fine-tuned teacher."""
        facts = facts_of(tmp_path, {**GLUE, "student": {"init_from": "distilbert/distilbert-base-uncased"}})
        data = make_card(facts, "ada/rte").data.to_dict()
        assert data["base_model"] == "distilbert/distilbert-base-uncased"
        assert data["teacher_model"] == "google-bert/bert-base-uncased"

    def test_folder_named_like_a_repository(self, tmp_path, monkeypatch):
        """`build/teacher` was a folder when the run was done; from elsewhere it looks like a stranger's repository."""
        recipe = {**RECIPE, "teacher": {"model": "build/teacher"}}
        facts = facts_of(tmp_path, recipe).known_to(lambda name: True)
        assert (facts.teacher_id, facts.base_id) == (None, None)
        facts = facts_of(tmp_path / "same", {**recipe, "student": {"init_from": "build/teacher"}})
        assert facts.known_to(lambda name: True).base_id is None

    def test_teacher_of_the_hub_beside_a_folder_of_its_name(self, glue, tmp_path, monkeypatch):
        """The run knows that its teacher came from the Hub, and by which commit, wherever the card is written."""
        monkeypatch.chdir(tmp_path)
        Path("google-bert/bert-base-uncased").mkdir(parents=True)
        facts = facts_of(tmp_path, GLUE)
        assert facts.teacher_id == facts.base_id == "google-bert/bert-base-uncased"
        assert facts.known_to(lambda name: False).teacher_id is None  # it is gone from the Hub
        page = f"https://huggingface.co/google-bert/bert-base-uncased/tree/{'c' * 40}"
        assert f"]({page}) at revision" in str(make_card(facts))

    def test_hub_takes_it(self, local, glue):
        """A card that the Hub refuses is found after the training otherwise."""
        for facts in (local, glue):
            assert metadata_errors(str(make_card(facts, "ada/tiny"))) == []

    def test_planned_card_has_the_same_keys_before_the_run(self, glue):
        """What is checked before the training must be what is pushed after it."""
        planned = planned_card(GLUE, HubTarget("ada/rte", license="mit")).data.to_dict()
        done = make_card(glue, "ada/rte", license="mit").data.to_dict()
        assert planned == {key: done[key] for key in planned} | {"tags": ["knowledge-distillation", "rte"]}
        assert done.keys() - planned.keys() == {"metrics", "model-index"}

    def test_no_path_is_taken_for_an_id_by_the_hub(self, local):
        """The strict Hub of these tests does refuse what the real one refuses."""
        card = str(make_card(local, "ada/tiny")).replace("library_name", "base_model: /data/teacher\nlibrary_name")
        assert "base_model" in metadata_errors(card)[0]


class TestText:
    def test_student_stands_beside_teacher_and_control(self, local):
        """The teacher's number next to the student's is what a reader looks for first."""
        text = make_card(local, "ada/tiny").text
        assert "| **student** | 85.5 | 95.0 | 93.0 |" in text
        assert "| teacher | 90.0 |  |  |" in text
        assert "| control: the same student, labels alone | 83.0 | 92.2 | 88.0 |" in text
        assert "Student minus control on validation: +2.5 points; " in text
        assert "| **student** | 2 | 2.0 | 8.0 | 4.00 | 8.00 |" in text

    def test_formula_has_the_numbers_of_the_run(self, local):
        """Without alpha and T in their places nobody can repeat the objective."""
        text = make_card(local, "ada/tiny").text
        assert "L = 0.75 * CE(student, label) + 0.25 * 2^2 * KL(teacher at T=2 || student at T=2)" in text
        assert "0 from 0, 1 from 2" in text
        assert "Seed 7, 150 optimiser steps, 1,600 training rows" in text

    def test_formula_of_schedules_and_deeper_terms(self, tmp_path):
        """A schedule that is shown as one number, or a term that is left out, is another objective."""
        terms = {"hidden_cosine": 0.5, "value_relation": {"weight": 2.0, "layers": "last"}, "attention_kl": 0.0}
        alpha = {"start": 0.9, "end": 0.1, "shape": "cosine"}
        recipe = {**RECIPE, "distillation": {"temperature": 4.0, "alpha": alpha, "terms": terms}}
        text = make_card(facts_of(tmp_path, recipe), "ada/tiny").text
        assert (
            "`L = (1 - alpha) * CE(student, label) + alpha * 4^2 * KL(teacher at T=4 || student at T=4)"
            " + 0.5 * hidden_cosine + 2 * value_relation(last)` (alpha goes from 0.9 to 0.1 (cosine))."
        ) in text

    def test_formula_of_augmented_rows(self, tmp_path):
        """An objective without the alpha of two thirds of the rows is another one."""
        results = results_of(RECIPE)
        results["data"]["augmentation"] = {"gold": 1600, "augmented": 3100, "transfer": 20, "dropped": 100}
        results["distillation"]["alpha_augmented"] = 0.9
        changed = {key: results[key] for key in ("data", "distillation")}
        text = make_card(facts_of(tmp_path, **changed), "ada/tiny").text
        assert (
            "(for 3,100 altered copies of training rows, added to them, the weight of the teacher is 0.9; "
            "20 unlabelled texts were added; rows without a label learn from the teacher alone)."
        ) in text

    def test_regression(self, tmp_path):
        """One output has no classes, no KL and no agreement."""
        results = results_of(RECIPE)
        for model in results["models"].values():
            split = model["splits"]["validation"]
            split["metrics"] = {"pearson": split["score"], "spearmanr": split["score"]}
            split["calibration_error"] = None
            split["fidelity"] = split["fidelity"] and {"agreement": None, "pearson": 0.987}
        folder = write_run(tmp_path / "run", RECIPE, **{**results, "metric": "pearson_spearman"})
        config = json.loads((folder / "student/config.json").read_text())
        (folder / "student/config.json").write_text(json.dumps({**config, "problem_type": "regression"}))
        card = make_card(RunFacts.read(RunFolder(folder)), "ada/tiny")
        assert "L = 0.75 * (student - label)^2 + 0.25 * (student - teacher)^2" in card.text
        assert "| **student** | 85.5 | 95.0 | 0.987 |" in card.text
        assert 'function_to_apply="none"' in card.text
        assert card.data.to_dict()["metrics"] == ["pearsonr", "spearmanr"]

    def test_snippet_names_its_own_repository_and_runs(self, local):
        """The first thing that a user copies must load this model."""
        text = make_card(local, "ada/tiny", "v1.0").text
        snippet = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
        compile(snippet, "card", "exec")
        assert 'pipeline("text-classification", model="ada/tiny", revision="v1.0")' in snippet
        assert "max_length=32" in snippet

    def test_pairs_are_shown_as_pairs(self, glue):
        """A model of pairs that is given one text answers nonsense."""
        assert 'classify({"text": "The first text.", "text_pair": "The second text."}' in make_card(glue).text

    def test_recipe_in_it_is_one(self, glue, tmp_path):
        """Who copies the recipe repeats the run, and pushes to nobody's repository."""
        from distilbert_kd.recipe import load_recipe

        path = tmp_path / "recipe.yaml"
        path.write_text(re.search(r"```yaml\n(.*?)```", make_card(glue).text, re.DOTALL)[1])
        recipe = load_recipe(path)
        assert (recipe.data.task, recipe.distillation.alpha, recipe.push) == ("rte", 0.25, None)

    def test_intervals_and_classes_of_the_report(self, tmp_path):
        """What the report worked out of the rows is shown, and without it nothing of the kind."""
        folder = write_run(tmp_path / "run")
        plain = make_card(RunFacts.read(RunFolder(folder))).text
        assert "## Classes" not in plain
        assert "95 % interval of the accuracy, over rows: 0.800 to 0.897" in plain
        classes = [{"name": "a|b", "num_rows": 120, "recall": {"student": 0.9, "teacher": 0.8, "control": None}}]
        split = {"scores": {"student": {"low": 0.81, "high": 0.89}}, "gain": {"low": -0.01, "high": 0.06}}
        report = {"splits": {"validation": {**split, "classes": classes}}}
        (folder / "report.json").write_text(json.dumps(report))
        text = make_card(RunFacts.read(RunFolder(folder))).text
        assert "95 % interval of the score, over rows: 0.810 to 0.890" in text
        assert "+2.5 points (95 % interval -1.0 to +6.0): zero is inside" in text.split("## Use")[0]
        assert "+2.5 points; how far the choice of rows moves that was not worked out" in plain
        assert "| a\\|b | 120 | 90.0 | 80.0 | 10.0 |" in text

    def test_what_makes_the_scores_worthless_comes_first(self, tmp_path):
        """Who reads no further than the first lines must not take a student that guesses for one that knows."""
        results = results_of(RECIPE)
        results["models"]["student"]["splits"]["validation"] |= {"is_near_chance": False, "constant_score": 0.86}
        lines = make_card(facts_of(tmp_path, models=results["models"])).text.strip().split("\n\n")
        assert lines[0] == "# tiny"
        assert lines[1].startswith("> **Warning:** The student scores 85.5 on validation, and the same answer for")

    def test_headline_is_of_the_test_rows(self, tmp_path):
        """One card, one headline: sentence, table and metadata begin with the rows that nothing was chosen on."""
        results = results_of(RECIPE)
        for model in results["models"].values():
            model["splits"]["test"] = {**model["splits"]["validation"], "score": 0.5, "num_rows": 100}
        results["data"]["drawn_from"] = {"validation": 954}
        card = make_card(facts_of(tmp_path, models=results["models"], data=results["data"]), "ada/tiny")
        assert "keeps 100.0 % of the teacher's accuracy on test" in card.text
        assert "| **student** | 50.0 | 100.0 | 93.0 | 85.5 | 95.0 | 93.0 |" in card.text
        assert [result.dataset_split for result in card.data.eval_results] == ["test"] * 2 + ["validation"] * 2
        assert "- validation, 200 of 954 rows: " in card.text.split("- test, 100 rows: ")[1]

    def test_times_have_their_spread(self, tmp_path):
        """A time without its spread looks exact, wherever it was measured."""
        results = results_of(RECIPE)
        results["models"]["student"]["latency_quartiles_ms"] = {"1": [3.52, 4.91]}
        setting = {"device": "cpu", "num_threads": 2, "num_rounds": {"1": 50}}
        text = make_card(facts_of(tmp_path, models=results["models"], latency_setting=setting)).text
        assert "| 4.00 (3.52 to 4.91) | 8.00 |" in text
        assert "One text takes 4.00 ms in place of 8.00 (medians)." in text
        assert "brackets quartiles, of rounds with other rows each: 50 at batch 1." in text

    def test_a_distilbert_is_called_one(self, tmp_path, local):
        """Who looks for a DistilBERT looks for the word, and for the class to load."""
        results = results_of(RECIPE)
        results["models"]["student"]["architecture"] = "DistilBertForSequenceClassification"
        text = make_card(facts_of(tmp_path, models=results["models"])).text
        assert "is a DistilBERT: it loads as DistilBertForSequenceClassification of transformers, and takes no" in text
        assert "is a DistilBERT" not in make_card(local).text

    def test_no_control_is_said(self, tmp_path):
        """Without a control nobody knows what the teacher was worth."""
        models = {"teacher": model_record(4, 0.9, None, 8.0), "student": model_record(2, 0.855, 0.93, 4.0)}
        text = make_card(facts_of(tmp_path, models=models)).text
        assert "labels alone |" not in text and "No control was trained" in text

    def test_places_of_this_machine_are_not_in_it(self, local):
        """A login name in a public card."""
        card = str(make_card(local, "ada/tiny"))
        assert "someone" not in card and "/data/" not in card
        assert "train train.jsonl, validation val.jsonl" in card

    def test_written_beside_the_weights(self, tmp_path):
        """The Hub shows the README.md of the repository, and no other file."""
        run = write_run(tmp_path / "run")
        path = write_card(run, {"license": "mit"})
        assert path == run / "student/README.md"
        assert ModelCard.load(path).data.license == "mit"
        assert "No licence is stated" not in path.read_text()

    def test_its_links_lead_to_the_plots(self, tmp_path):
        """Beside the weights it stands one folder below the plots, and showed broken pictures."""
        run = write_run(tmp_path / "run")
        (run / "plots").mkdir(exist_ok=True)
        (run / "plots" / "scores.png").write_bytes(b"x")
        path = write_card(run, {})
        links = re.findall(r"!\[.*?\]\((.*?)\)", path.read_text("utf-8"))
        assert links and all((path.parent / link).is_file() for link in links)
        assert "distilbert-kd run ../recipe.yaml" in path.read_text("utf-8")


class TestMarkup:
    def test_text_of_data_is_shown_and_not_read(self, tmp_path):
        """A label or note with markup in it would run in the reader's browser, or break the table."""
        evil = "</table><script>alert(1)</script> | **x** ![y](http://evil)"
        facts = facts_of(tmp_path, data={**results_of(RECIPE)["data"], "notes": [evil]}, task=evil)
        text = make_card(facts).text
        assert not re.search(r"(?<!\\)<", text)
        assert "![y]" not in text

    @pytest.mark.parametrize(("text", "expected"), [("a`b", "`` a`b ``"), ("a\nb", "`a b`")])
    def test_code(self, text, expected):
        """A backtick in a label would end the code and let the rest be markup."""
        assert code(text) == expected

    def test_fence_is_longer_than_what_it_holds(self):
        """Three backticks in a recipe's text would end the block."""
        assert fenced("a\n````\nb", "yaml").startswith("`````yaml\n")

    def test_escaped(self):
        """Each character that means something to Markdown is preceded by a backslash, in one line."""
        assert escaped("a_b*\n<c>|#") == r"a\_b\* \<c\>\|\#"


class TestWilson:
    def test_known_values(self):
        """A share of 57/67 rows is no whole number of rows in floating point, and a share of 1 has no row to spare."""
        z = NormalDist().inv_cdf(0.975)
        for hits, rows in ((0, 10), (171, 200), (57, 67), (10, 10)):
            share = hits / rows
            half = z * sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
            expected = [(share + z**2 / (2 * rows) + side * half) / (1 + z**2 / rows) for side in (-1, 1)]
            assert _wilson_interval(share, rows) == pytest.approx(expected, abs=1e-9)


def test_card_passes_the_clients_own_validation(client, hub, run):
    """`ModelCard.validate` is what others call before they copy the card."""
    assert client.ask("card", run, "--repo", "ada/tiny").exit_code == 0
    card = run / "student/README.md"
    answer = client.ask(code=f"from huggingface_hub import ModelCard\nModelCard.load({str(card)!r}).validate()")
    assert answer.exit_code == 0, answer.stderr
    assert hub.log == ["POST /api/validate-yaml"]


def test_card_of_a_real_run(client, hub, tmp_path):
    """Made-up records hold what we think of; RUN_DIR=runs/movie_reviews checks the card of a run that was trained."""
    if not os.environ.get("RUN_DIR"):
        pytest.skip("needs the folder of a finished run: RUN_DIR=runs/movie_reviews")
    given = Path(os.environ["RUN_DIR"])
    places = shutil.ignore_patterns("teacher", "control", "checkpoints", "hub", "space")
    run = shutil.copytree(given, tmp_path / given.name, ignore=places)
    assert client.ask("card", run, "--repo", "ada/real", "--license", "apache-2.0").exit_code == 0
    path = run / "student" / "README.md"
    card = ModelCard.load(path)
    answer = client.ask(code=f"from huggingface_hub import ModelCard\nModelCard.load({str(path)!r}).validate()")
    assert answer.exit_code == 0, answer.stderr
    assert hub.log == ["POST /api/validate-yaml"]
    scored = json.loads((run / "results.json").read_text("utf-8"))["models"]["student"]["splits"]
    said = {(each.dataset_split, each.metric_value) for each in card.data.eval_results}
    assert said == {(split, value) for split, record in scored.items() for value in record["metrics"].values()}
    assert str(given.resolve().parent) not in str(card) and str(Path.home()) not in str(card)
