"""A whole run: what it leaves, that it can be repeated, and what happens when something is wrong."""

import errno
import json
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

from distilbert_kd import pipeline, recipe_parts
from distilbert_kd.errors import DataError, DivergedError, RecipeError, StoppedError, StorageError, TeacherError
from distilbert_kd.latency import measure_latency
from distilbert_kd.recipe import Recipe, load_recipe
from distilbert_kd.result_facts import warnings_of
from distilbert_kd.results import render_table
from distilbert_kd.results_schema import Results
from distilbert_kd.resuming import Progress
from distilbert_kd.trainer import DistillationTrainer
from distilbert_kd.training import train_model
from distilbert_kd.weights import weights_sha256
from tests.schema_keys import unnamed
from tests.tiny import tiny_bert, tiny_tokenizer
from tests.tiny_runs import review_rows, save_tiny_base, write_jsonl, write_recipe


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def recipe_file(base, tmp_path_factory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"), base)


@pytest.fixture(scope="module")
def finished(recipe_file) -> tuple[Recipe, dict]:
    recipe = load_recipe(recipe_file)
    return recipe, pipeline.run(recipe)


@pytest.fixture(scope="module")
def external(finished) -> tuple[str, ...]:
    """Overrides for a short run with the teacher of the finished one."""
    teacher = Path(finished[0].output_dir) / "teacher"
    return (f"teacher.model={teacher}", "teacher.finetune=null", "training.num_train_epochs=1")


@pytest.fixture(autouse=True)
def quick_timing(monkeypatch):
    """Three rounds are enough to see that forward passes are timed."""
    monkeypatch.setattr("distilbert_kd.scoring.measure_latency", partial(measure_latency, max_seconds=0.0))


@pytest.fixture
def no_model(monkeypatch):
    """Fails the test when a model or a tokenizer is loaded."""

    def refuse(*args, **kwargs):
        pytest.fail("a model was loaded")

    for name in ("load_base", "load_teacher", "load_tokenizer"):
        monkeypatch.setattr(recipe_parts, name, refuse)


def sha256(folder: Path) -> str:
    return weights_sha256(AutoModelForSequenceClassification.from_pretrained(folder))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


#: The shortest fine-tuning of a teacher, whatever becomes of it.
HASTY = ("teacher.finetune.num_train_epochs=1", "teacher.allow_near_chance=true", "training.num_train_epochs=1")


def recipe_with(recipe_file: Path, output_dir: Path, *overrides: str) -> Recipe:
    return load_recipe(recipe_file, [f"output_dir={output_dir}", *overrides])


class TestRunFolder:
    def test_holds_everything_and_no_checkpoint(self, finished):
        # A file that is missing here is missing for evaluate, predict and every report on another machine.
        folder = Path(finished[0].output_dir)
        assert names_in(folder) == {
            *("recipe.yaml", "environment.json", "history.json", "results.json", "results.md"),
            *("scored", "report.html", "report.json", "report.md", "plots"),
            *("teacher", "student", "control"),
        }

    @pytest.mark.parametrize("model", ["teacher", "student", "control"])
    def test_a_model_folder_is_plain(self, finished, model):
        # A pickle would be refused by careful users, and a file of the Trainer's would leak paths and settings.
        folder = Path(finished[0].output_dir) / model
        assert names_in(folder) == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}

    def test_the_student_works_without_our_code(self, finished):
        # A user takes student/ to a service that has transformers alone.
        folder = Path(finished[0].output_dir) / "student"
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        assert type(model) is BertForSequenceClassification
        assert model.config.num_hidden_layers == 2
        assert model.config.problem_type == "single_label_classification"
        classify = transformers.pipeline("text-classification", model=str(folder), device="cpu")
        texts = ["a good and funny film", "the plot is dull and awful"]
        assert [answer["label"] for answer in classify(texts)] == ["positive", "negative"]

    def test_results_are_complete(self, finished):
        # A tool that reads results.json must find every key that results.py promises.
        recipe, returned = finished
        results = json.loads((Path(recipe.output_dir) / "results.json").read_text("utf-8"))
        assert results == json.loads(json.dumps(returned))
        assert unnamed(Results.model_validate(results)) == []
        assert results["schema_version"] == 1
        assert (results["name"], results["task"], results["metric"]) == ("tiny", "tiny", "accuracy_f1")
        assert results["data"]["rows"] == {"train": 64, "validation": 24}
        assert results["student"] == {"layers": [0, 2], "init_from": None}
        assert results["distillation"] == {"temperature": 2.0, "alpha": 0.5, "terms": {}}
        assert results["seed"] == 42
        assert set(results["seconds"]) == {"teacher", "distillation", "control", "total"}
        assert results["seconds"]["total"] > results["seconds"]["distillation"] > 0
        assert results["latency_setting"]["device"] == "cpu"
        assert list(results["models"]) == ["teacher", "student", "control"]
        for name, num_layers in (("teacher", 4), ("student", 2), ("control", 2)):
            model = results["models"][name]
            assert model["num_layers"] == num_layers
            assert model["size_mb"] == pytest.approx(4e-6 * model["num_parameters"])
            assert set(model["latency_ms"]) == {"1", "32"} == results["latency_setting"]["num_rounds"].keys()
            for size, (low, high) in model["latency_quartiles_ms"].items():
                assert 0 < low <= model["latency_ms"][size] <= high
            assert model["architecture"] == "BertForSequenceClassification"
            split = model["splits"]["validation"]
            assert split["num_rows"] == 24
            assert split["score"] == split["metrics"]["accuracy"] > 0.7
            assert (split["fidelity"] is None) == (name == "teacher")
        assert results["models"]["teacher"]["name"].endswith(", fine-tuned here")

    def test_results_are_written_last(self, recipe_file, external, tmp_path, monkeypatch):
        # results.json says that a run is whole; it must not be there while anything else is still to be written but
        # the report, which is made of the folder and can be made again.
        seen = {}
        write = pipeline.RunRecords.write_results

        def look(self, results):
            seen["before"] = names_in(self.folder.root)
            write(self, results)

        monkeypatch.setattr(pipeline.RunRecords, "write_results", look)
        pipeline.run(recipe_with(recipe_file, tmp_path / "run", "control=false", *external))
        lasting = {"recipe.yaml", "environment.json", "history.json", "student", "scored"}
        report = {"report.html", "report.json", "report.md", "plots"}
        assert seen["before"] == {*lasting, "progress.json", ".lock"}  # the marks of a run that goes on
        assert names_in(tmp_path / "run") == {*lasting, *report, "results.md", "results.json"}

    def test_the_recipe_is_the_one_that_was_run(self, finished):
        # A recipe that reads back as another one would make `evaluate` score other rows or at another length.
        recipe = finished[0]
        assert load_recipe(Path(recipe.output_dir) / "recipe.yaml") == recipe

    def test_the_environment_identifies_data_and_teacher(self, finished):
        # Without fingerprints nobody can tell later whether a run and a data set belong together.
        recipe = finished[0]
        folder = Path(recipe.output_dir)
        environment = json.loads((folder / "environment.json").read_text("utf-8"))
        assert environment["teacher"]["weights_sha256"] == sha256(folder / "teacher")
        assert environment["teacher"]["model"] == recipe.teacher.model
        assert set(environment["data"]["sha256"]) == {"train", "validation"}
        assert environment["seed"] == 42

    def test_history_has_each_epoch_and_each_term(self, finished):
        # A learning curve is the first thing that one looks at when a result is bad.
        history = json.loads((Path(finished[0].output_dir) / "history.json").read_text("utf-8"))
        assert {name: sum("eval_score" in entry for entry in log) for name, log in history.items()} == {
            "teacher": 8,
            "student": 3,
            "control": 3,
        }
        assert all("hard_loss" in entry and "soft_loss" in entry for entry in history["student"] if "loss" in entry)

    def test_checkpoints_stay_if_the_recipe_asks_for_them(self, recipe_file, external, tmp_path):
        # A setting that is passed to the Trainer must have its effect in the end, too.
        wanted = (*external, "training.save_strategy=epoch", "control=false")
        pipeline.run(recipe_with(recipe_file, tmp_path / "run", *wanted))
        assert names_in(tmp_path / "run" / "checkpoints") == {"student"}
        assert names_in(tmp_path / "run" / "checkpoints" / "student") == {"checkpoint-8"}


class TestTeacherAndControl:
    def test_the_teacher_keeps_its_best_epoch(self, finished):
        # The last epoch may be worse than one before it, and the student learns from what is kept.
        recipe, results = finished
        history = json.loads((Path(recipe.output_dir) / "history.json").read_text("utf-8"))["teacher"]
        best = max(entry["eval_score"] for entry in history if "eval_score" in entry)
        assert results["models"]["teacher"]["splits"]["validation"]["score"] == best

    def test_the_teacher_is_trained_on_the_labels_alone(self, finished):
        # The standard objective: nothing of distillation may reach the teacher's fine-tuning.
        history = json.loads((Path(finished[0].output_dir) / "history.json").read_text("utf-8"))["teacher"]
        assert not any("soft_loss" in entry for entry in history)

    def test_the_control_starts_as_the_student_and_has_no_teacher(self, recipe_file, external, tmp_path, monkeypatch):
        # What the teacher bought is the difference of two runs that differ in the teacher alone.
        starts, teachers = {}, {}

        def look(what, reader, *args, **kwargs):
            starts[what], teachers[what] = weights_sha256(reader.model), kwargs.get("teacher_logits")
            return train_model(what, reader, *args, **kwargs)

        monkeypatch.setattr(pipeline, "train_model", look)
        pipeline.run(recipe_with(recipe_file, tmp_path / "run", *external))
        assert starts["student"] == starts["control"]
        assert teachers["student"] is not None
        assert teachers["control"] is None
        history = json.loads((tmp_path / "run" / "history.json").read_text("utf-8"))["control"]
        assert not any("soft_loss" in entry or "alpha" in entry for entry in history)

    def test_alpha_zero_equals_the_control(self, recipe_file, external, tmp_path):
        # If student and control differ in anything but the teacher, they differ here too.
        pipeline.run(recipe_with(recipe_file, tmp_path / "run", "distillation.alpha=0.0", *external))
        assert sha256(tmp_path / "run" / "student") == sha256(tmp_path / "run" / "control")

    def test_a_finetuned_teacher_with_labels_in_another_order(self, finished, tmp_path):
        # Swapped outputs would teach the opposite, at a plausible loss.
        recipe, results = finished
        teacher = AutoModelForSequenceClassification.from_pretrained(Path(recipe.output_dir) / "teacher")
        with torch.no_grad():
            for parameter in teacher.classifier.parameters():
                parameter.copy_(parameter.flip(0))
        teacher.config.id2label = {0: "Positive", 1: "Negative"}
        teacher.config.label2id = {"Positive": 0, "Negative": 1}
        teacher.save_pretrained(tmp_path / "swapped")
        AutoTokenizer.from_pretrained(recipe.teacher.model).save_pretrained(tmp_path / "swapped")
        path = Path(recipe.output_dir).parent / "recipe.yaml"
        swapped = (f"teacher.model={tmp_path / 'swapped'}", "teacher.finetune=null", "control=false")
        again = pipeline.run(recipe_with(path, tmp_path / "run", *swapped))
        assert again["models"]["teacher"]["splits"] == results["models"]["teacher"]["splits"]
        assert sha256(tmp_path / "run" / "student") == sha256(Path(recipe.output_dir) / "student")
        assert not (tmp_path / "run" / "teacher").exists()
        assert again["models"]["teacher"]["name"] == str(tmp_path / "swapped")


class TestSeed:
    def test_the_same_seed_gives_the_same_weights(self, finished, tmp_path):
        # A result that can't be repeated can't be explained.
        recipe = finished[0]
        first, again = Path(recipe.output_dir), tmp_path / "run"
        pipeline.run(recipe_with(first.parent / "recipe.yaml", again))
        for model in ("teacher", "student", "control"):
            assert sha256(again / model) == sha256(first / model), model

    def test_another_seed_gives_others(self, finished, tmp_path):
        # A seed that reaches no generator would make "three seeds" one.
        first, other = Path(finished[0].output_dir), tmp_path / "run"
        pipeline.run(recipe_with(first.parent / "recipe.yaml", other, "seed=7"))
        for model in ("teacher", "student", "control"):
            assert sha256(other / model) != sha256(first / model), model


class TestKindsOfData:
    def test_rows_without_a_label(self, base, tmp_path):
        # Unlabelled text is what distillation is for; it must reach the student and leave the others alone.
        path = write_recipe(tmp_path, base)
        rows = review_rows(96)
        write_jsonl(tmp_path / "train.jsonl", [*rows[:64], *({**row, "label": None} for row in rows[64:])])
        results = pipeline.run(load_recipe(path, ["data.allow_unlabelled_rows=true"]))
        assert results["data"]["rows"]["train"] == 96
        assert "train: 32 of 96 rows have no label" in results["data"]["notes"]
        assert results["models"]["student"]["splits"]["validation"]["score"] > 0.7

    def test_numbers(self, base, tmp_path):
        # Regression takes another head, loss, metric and fidelity; one that stayed behind would show here.
        path = write_recipe(tmp_path, base)
        for name, num_rows, seed in (("train", 64, 0), ("validation", 24, 1)):
            rows = review_rows(num_rows, seed)
            number = {"negative": 1.0, "positive": 4.0}
            write_jsonl(tmp_path / f"{name}.jsonl", [{**row, "label": number[row["label"]]} for row in rows])
        results = pipeline.run(
            load_recipe(path, ["data.problem_type=regression", "data.labels=null", "control=false"])
        )
        assert results["metric"] == "pearson_spearman"
        student = results["models"]["student"]["splits"]["validation"]
        assert student["score"] > 0.5
        assert student["fidelity"]["agreement"] is None
        assert student["fidelity"]["pearson"] > 0.5
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "student")
        assert (model.config.num_labels, model.config.problem_type) == (1, "regression")

    def test_schedules_reach_the_student(self, recipe_file, external, tmp_path):
        # A schedule that is read from the recipe and then dropped would train at a constant without a word.
        alpha = "distillation.alpha={start: 1.0, end: 0.0, shape: linear}"
        settings = (*external, alpha, "control=false", "training.logging_steps=1")
        pipeline.run(recipe_with(recipe_file, tmp_path / "run", *settings))
        history = json.loads((tmp_path / "run" / "history.json").read_text("utf-8"))["student"]
        seen = [entry["alpha"] for entry in history if "alpha" in entry]
        assert seen == pytest.approx([1 - step / 7 for step in range(8)], abs=1e-6)

    def test_deeper_terms_reach_the_student_and_leave_no_trace_in_it(self, recipe_file, external, tmp_path):
        # Terms that are read and dropped would be a run without them; a wider start has projections, which must go.
        narrow = tiny_bert(num_layers=4, hidden_size=16, initializer_range=0.02).bert
        narrow.save_pretrained(tmp_path / "narrow")
        tiny_tokenizer(tmp_path / "narrow")
        terms = "distillation.terms={hidden_cosine: 1.0, value_relation: {weight: 2, layers: uniform}, hidden_mse: 0}"
        start = f"student.init_from={tmp_path / 'narrow'}"
        settings = (*external, terms, start, "control=false", "training.logging_steps=1")
        results = pipeline.run(recipe_with(recipe_file, tmp_path / "run", *settings))
        history = json.loads((tmp_path / "run" / "history.json").read_text("utf-8"))["student"]
        first = next(entry for entry in history if "loss" in entry)
        assert {"hidden_cosine", "value_relation"} < first.keys()
        assert "hidden_mse" not in first
        saved = load_file(tmp_path / "run" / "student" / "model.safetensors")
        assert not [name for name in saved if "projections" in name]
        assert results["models"]["student"]["num_parameters"] == sum(weight.numel() for weight in saved.values())
        assert "hidden_cosine 1, value_relation 2." in render_table(results)

    def test_another_precision_for_the_student_than_for_the_teacher(self, recipe_file, tmp_path):
        # Accelerate keeps one precision for a process: the student failed after hours of the teacher's training.
        results = pipeline.run(recipe_with(recipe_file, tmp_path / "run", *HASTY, "training.bf16=true"))
        assert set(results["models"]) == {"teacher", "student", "control"}
        assert all(
            weight.dtype == torch.float32
            for weight in load_file(tmp_path / "run" / "student" / "model.safetensors").values()
        )


class TestRefusedBeforeAnythingIsLoaded:
    @pytest.mark.parametrize(
        ("override", "where"),
        [
            ("training.logging_steps=0", "training"),
            ("training.optim=adamw_bnb_8bit", "training"),  # a package that is not there
            ("training.learning_rate=-1.0", "training"),  # found by torch when the first step is near
            ("training.per_device_train_batch_size=0", "training"),
            ("teacher.finetune.save_strategy=steps", "teacher.finetune"),  # the best epoch needs one per evaluation
        ],
    )
    def test_a_wrong_training_argument(self, recipe_file, tmp_path, no_model, override, where):
        # A wrong value must not come out after a download, or after the teacher's training.
        with pytest.raises(RecipeError, match=f"the Trainer can use under '{where}'"):
            pipeline.run(recipe_with(recipe_file, tmp_path / "run", override))
        assert not (tmp_path / "run").exists()

    def test_terms_that_the_training_would_lose(self, recipe_file, tmp_path, no_model):
        # It was refused when the student's training began, after the teacher's.
        overrides = ("distillation.terms.hidden_mse=1", "training.activation_checkpointing=true")
        with pytest.raises(RecipeError, match="terms with gradient_checkpointing"):
            pipeline.run(recipe_with(recipe_file, tmp_path / "run", *overrides))

    def test_attention_that_is_not_to_be_had(self, recipe_file, tmp_path, no_model):
        # An ImportError of transformers, with a traceback, after the data were read.
        with pytest.raises(RecipeError, match="flash-attn"):
            pipeline.run(recipe_with(recipe_file, tmp_path / "run", "attn_implementation=flash_attention_2"))

    def test_a_label_that_is_none(self, base, tmp_path, no_model):
        # A bad row is found when the data are read, not at the step that meets it.
        path = write_recipe(tmp_path, base)
        rows = review_rows(8)
        write_jsonl(tmp_path / "train.jsonl", [*rows[:7], {**rows[7], "label": "mixed"}])
        with pytest.raises(DataError, match="mixed.* line 8"):
            pipeline.run(load_recipe(path))
        assert not (tmp_path / "run").exists()  # nothing of a refused run stays behind

    def test_a_column_that_is_missing(self, recipe_file, tmp_path, no_model):
        with pytest.raises(DataError, match="review"):
            pipeline.run(recipe_with(recipe_file, tmp_path / "run", "data.text=review"))

    def test_a_finished_run_of_another_recipe(self, finished, no_model, recipe_file):
        # Two runs in one folder would mix their files.
        recipe = finished[0]
        before = {path: path.stat().st_mtime_ns for path in Path(recipe.output_dir).rglob("*")}
        message = "run in .*, which is finished, got other values of distillation.alpha, seed.*nothing is overwritten"
        other = recipe_with(recipe_file, Path(recipe.output_dir), "seed=7", "distillation.alpha=0.1")
        for allowed in ([], ["seed", "distillation"]):
            with pytest.raises(StorageError, match=message):
                pipeline.run(other, allow_changed=allowed)
        assert {path: path.stat().st_mtime_ns for path in Path(recipe.output_dir).rglob("*")} == before

    def test_a_finished_run_is_left_as_it_is(self, finished, no_model, caplog):
        # Under a supervisor that starts a run until it ends with 0, a success must look like one.
        recipe, results = finished
        before = {path: path.stat().st_mtime_ns for path in Path(recipe.output_dir).rglob("*")}
        with caplog.at_level("INFO", "distilbert_kd"):
            assert pipeline.run(recipe) == json.loads(json.dumps(results))
        assert f"is finished, and nothing of it is done again: its results are in {recipe.output_dir}" in caplog.text
        assert "device:" not in caplog.text
        assert {path: path.stat().st_mtime_ns for path in Path(recipe.output_dir).rglob("*")} == before

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (("student.num_layers=5",), "^student.num_layers: expected 1 to 4, .*, got 5"),
            (("student.layers=[0, 4]",), "^student.layers: expected increasing layer numbers from 0 to 3"),
            (("student.init_from={shallow}",), "expected 1 to 1, .*, got 2. .* half of the teacher's layers"),
        ],
    )
    def test_layers_that_are_not_there_from_the_configuration_alone(
        self, recipe_file, tmp_path, no_model, overrides, message
    ):
        # It was found when data and weights were loaded, and the key was named without its section.
        for name, num_layers in (("teacher", 4), ("shallow", 1)):  # a folder without weights
            tiny_bert(num_layers=num_layers).config.save_pretrained(tmp_path / name)
        values = [override.format(shallow=tmp_path / "shallow") for override in overrides]
        recipe = recipe_with(recipe_file, tmp_path / "run", f"teacher.model={tmp_path / 'teacher'}", *values)
        with pytest.raises(RecipeError, match=message):
            pipeline.run(recipe)
        assert not (tmp_path / "run").exists()

    def test_a_term_that_can_not_be_had_before_the_teacher_is_trained(self, recipe_file, tmp_path, monkeypatch):
        # The layers are known once the models are; the first step of the student would be hours later.
        monkeypatch.setattr(pipeline, "train_model", lambda *args, **kwargs: pytest.fail("a model was trained"))
        terms = "distillation.terms={hidden_mse: {weight: 1, layers: [[0, 4]]}}"
        with pytest.raises(RecipeError, match="terms.hidden_mse.layers: expected pairs"):
            pipeline.run(recipe_with(recipe_file, tmp_path / "run", terms))

    def test_a_next_try_takes_the_same_folder(self, finished, recipe_file, tmp_path):
        # A refusal that leaves files behind makes the user move them away before the corrected run.
        weak = AutoModelForSequenceClassification.from_pretrained(Path(finished[0].output_dir) / "teacher")
        torch.nn.init.zeros_(weak.classifier.weight)  # it says the same of every text
        weak.save_pretrained(tmp_path / "weak")
        AutoTokenizer.from_pretrained(finished[0].teacher.model).save_pretrained(tmp_path / "weak")
        external = (f"teacher.model={tmp_path / 'weak'}", "teacher.finetune=null", "training.num_train_epochs=1")
        with pytest.raises(TeacherError, match="guessing") as refusal:
            pipeline.run(recipe_with(recipe_file, tmp_path / "run", *external))
        assert not hasattr(refusal.value, "__notes__")
        again = recipe_with(recipe_file, tmp_path / "run", *external, "teacher.allow_near_chance=true")
        (first, *_) = warnings_of(pipeline.run(again))
        assert first.startswith("The teacher is near chance on validation")


class TestNothingIsLost:
    def test_a_teacher_near_chance_is_kept_and_can_be_taken_on(self, recipe_file, tmp_path):
        # Hours of fine-tuning were gone when the score was not what was hoped for.
        short = ("teacher.finetune.learning_rate=1e-8", "teacher.finetune.num_train_epochs=1")
        with pytest.raises(TeacherError, match="guessing stays below") as stopped:
            pipeline.run(recipe_with(recipe_file, tmp_path / "run", *short))
        assert stopped.value.exit_code == 2
        (note,) = stopped.value.__notes__
        assert f"teacher.model={tmp_path}/run/teacher teacher.finetune=null" in note
        assert {"recipe.yaml", "history.json", "teacher"} <= names_in(tmp_path / "run")
        assert "results.json" not in names_in(tmp_path / "run")
        words = [word for word in note.split() if word.startswith("teacher.")]
        again = (*words, "teacher.allow_near_chance=true", "training.num_train_epochs=1", "control=false")
        results = pipeline.run(recipe_with(recipe_file, tmp_path / "second", *again))
        assert set(results["models"]) == {"teacher", "student"}

    def test_a_student_that_learnt_nothing_is_said_to(self, recipe_file, external, tmp_path):
        # It gave every row the same class, and its table said that it kept 88 % of the teacher's accuracy.
        lost = (
            "data.max_validation_rows=20",
            "training.max_steps=1",
            "training.learning_rate=1e-9",
            "student.init_from=" + str(tmp_path / "base"),
        )
        save_tiny_base(tmp_path / "base")
        results = pipeline.run(recipe_with(recipe_file, tmp_path / "run", *external, *lost))
        assert [line for line in warnings_of(results) if line.startswith("The student is near chance on validation")]
        assert render_table(results).split("\n\n")[1].startswith("WARNING: The student")
        assert "validation, 20 of 24 rows" in render_table(results)
        assert unnamed(Results.model_validate(results)) == []

    def test_a_student_that_diverges(self, recipe_file, tmp_path):
        # The teacher was right: only the student's settings are to be changed.
        with pytest.raises(DivergedError) as stopped:
            pipeline.run(recipe_with(recipe_file, tmp_path / "run", *HASTY, "training.learning_rate=1e30"))
        assert "teacher.finetune=null" in stopped.value.__notes__[0]
        assert (tmp_path / "run" / "teacher" / "model.safetensors").is_file()
        assert not (tmp_path / "run" / "student").exists()

    def test_a_control_that_is_interrupted(self, recipe_file, external, tmp_path, monkeypatch):
        # The student is done by then; it was saved after the control only.
        def interrupt(what, *args, **kwargs):
            if what == "control":
                raise KeyboardInterrupt
            return train_model(what, *args, **kwargs)

        monkeypatch.setattr(pipeline, "train_model", interrupt)
        with pytest.raises(KeyboardInterrupt) as stopped:
            pipeline.run(recipe_with(recipe_file, tmp_path / "run", *external))
        assert f"The distilled student is kept in {tmp_path}/run/student." in stopped.value.__notes__
        assert (tmp_path / "run" / "student" / "model.safetensors").is_file()
        assert set(json.loads((tmp_path / "run" / "history.json").read_text("utf-8"))) == {"student"}

    def test_a_peer_that_is_lost(self, recipe_file, tmp_path, monkeypatch):
        # The advice for a bad recipe, another folder and the teacher by name, was given to who had to start again.
        def lose(what, *args, **kwargs):
            if what == "student":
                raise RuntimeError("Connection closed by peer")
            return train_model(what, *args, **kwargs)

        save_tiny_base(tmp_path / "base")
        monkeypatch.setattr(pipeline, "train_model", lose)
        with pytest.raises(RuntimeError) as stopped:
            pipeline.run(recipe_with(recipe_file, tmp_path / "run", *HASTY))
        assert stopped.value.__notes__ == [
            f"The fine-tuned teacher is kept in {tmp_path}/run/teacher.",
            "Start the same command again to go on.",
        ]

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
            (OSError(errno.EROFS, "Read-only file system"), "the file system is read-only"),
            (SafetensorError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        ],
    )
    def test_a_disk_that_fills_up_at_the_end(self, recipe_file, external, tmp_path, monkeypatch, error, reason):
        # A traceback of safetensors says nothing about the folder, nor about the teacher that is safe.
        save = DistillationTrainer.save_model

        def fail(self, output_dir=None, _internal_call=False):
            if str(output_dir).endswith("student"):
                raise error
            save(self, output_dir, _internal_call)

        monkeypatch.setattr(DistillationTrainer, "save_model", fail)
        with pytest.raises(StorageError, match=f"{tmp_path}/run/student, got: .*{reason}") as stopped:
            pipeline.run(recipe_with(recipe_file, tmp_path / "run", *external))
        assert stopped.value.exit_code == 4

    def test_a_disk_that_fills_up_at_a_checkpoint(self, recipe_file, tmp_path, monkeypatch):
        def fail(self, output_dir=None, _internal_call=False):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(DistillationTrainer, "save_model", fail)
        with pytest.raises(
            StorageError, match=r"run/checkpoints/teacher/checkpoint-\d+, got: the disk is full: [\d.]+ MB are needed"
        ):
            pipeline.run(recipe_with(recipe_file, tmp_path / "run"))

    def test_a_fault_of_memory_is_not_taken_for_another(self, recipe_file, tmp_path, monkeypatch):
        # Out of memory on a GPU is a RuntimeError; rewritten as a fault of the disk it would mislead.
        def fail(*args, **kwargs):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

        monkeypatch.setattr(DistillationTrainer, "train", fail)
        with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
            pipeline.run(recipe_with(recipe_file, tmp_path / "run"))


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A recipe whose run was stopped before its teacher's training, and is again whenever it comes there."""
    base = save_tiny_base(tmp_path / "base")
    recipe = load_recipe(write_recipe(tmp_path / "in", base), [f"output_dir={tmp_path / 'run'}", *HASTY])

    def stop(*args, **kwargs):
        raise StoppedError("told to")

    monkeypatch.setattr(pipeline, "train_model", stop)
    with pytest.raises(StoppedError):
        pipeline.run(recipe)
    return recipe


def test_another_tokenizer_is_not_gone_on_with(stopped, tmp_path):
    """Prevents a student that read one half of its training with other token ids than the rest."""
    tokenizer = tmp_path / "base" / "tokenizer.json"
    content = json.loads(tokenizer.read_text("utf-8"))
    content["normalizer"]["lowercase"] = not content["normalizer"]["lowercase"]
    tokenizer.write_text(json.dumps(content), "utf-8")
    with pytest.raises(StorageError, match="other values of tokenizer than.*--allow-changed tokenizer"):
        pipeline.run(stopped)
    with pytest.raises(StoppedError):
        pipeline.run(stopped, allow_changed=["tokenizer"])


def test_another_precision_is_not_gone_on_with(stopped, monkeypatch):
    """Prevents a run that moved from a GPU to a machine without one from being half in bf16, and half not, unsaid."""
    monkeypatch.setattr(pipeline, "precision_of", lambda arguments: "bf16")
    with pytest.raises(StorageError, match="other values of precision than.*--allow-changed precision"):
        pipeline.run(stopped)
    with pytest.raises(StoppedError):
        pipeline.run(stopped, allow_changed=["precision"])


def test_a_run_that_was_killed_after_its_results_is_finished(recipe_file, tmp_path, monkeypatch):
    """Prevents a launch that has all its results from failing for good because it was killed before it said so."""
    recipe = recipe_with(recipe_file, tmp_path / "run", *HASTY)

    def killed(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Progress, "remove", killed)
        pipeline.run(recipe)
    before = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    after = pipeline.run(recipe)
    for name, model in before["models"].items():
        assert after["models"][name]["splits"] == json.loads(json.dumps(model["splits"]))
    assert after["seconds"]["teacher"] == before["seconds"]["teacher"]  # which is not within the total
    note = "time of each training is that of the start that finished it, the total that of the last start."
    assert note in after["data"]["notes"][-1] and not any(note in each for each in before["data"]["notes"])
    assert not (tmp_path / "run" / "progress.json").exists() and (tmp_path / "run" / "report.html").is_file()


def test_a_damaged_history_is_named(recipe_file, tmp_path, monkeypatch):
    """Prevents a traceback of JSON where a person has one file to bring back."""
    recipe = recipe_with(recipe_file, tmp_path / "run", *HASTY)

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(pipeline, "describe_models", killed)
        pipeline.run(recipe)
    (tmp_path / "run" / "history.json").write_text('{"teacher": [{"lo', encoding="utf-8")
    with pytest.raises(StorageError, match="history.json.*move .* away"):
        pipeline.run(recipe)
