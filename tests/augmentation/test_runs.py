"""Whole runs with more rows than labels, and the commands that show them before."""

import logging
from functools import partial
from pathlib import Path

import datasets
import pytest
from typer.testing import CliRunner

from distilbert_kd import pipeline
from distilbert_kd.augmentation.from_recipe import with_training_rows
from distilbert_kd.cli import app
from distilbert_kd.data.loading import load_task
from distilbert_kd.errors import RecipeError, StorageError, TeacherError
from distilbert_kd.latency import measure_latency
from distilbert_kd.recipe import Recipe, load_recipe
from distilbert_kd.recipe_parts import readers_of
from distilbert_kd.results_schema import Results
from tests.pretraining.language_models import tiny_masked_lm
from tests.schema_keys import unnamed
from tests.tiny import tiny_tokenizer
from tests.tiny_runs import review_rows, save_tiny_base, write_jsonl, write_recipe


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Three rounds are enough to see that forward passes are timed, and no one reads the report here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distilbert_kd.scoring.measure_latency", partial(measure_latency, max_seconds=0.0))
        patch.setattr("distilbert_kd.run_records.RunRecords.write_report", lambda records: None)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def recipe_file(base, tmp_path_factory) -> Path:
    """Two copies of each row, and 16 unlabelled texts."""
    folder = tmp_path_factory.mktemp("recipe")
    texts = write_jsonl(
        folder / "more.jsonl", [{"text": f"the {row['text']} plot"} for row in review_rows(16, seed=7)]
    )
    section = {"num_copies": 2, "methods": ["embedding_neighbours", "swap"], "transfer_set": str(texts)}
    return write_recipe(folder, base, augmentation=section)


def recipe_in(folder: Path, recipe_file: Path, *overrides: str) -> Recipe:
    short = ("teacher.finetune.num_train_epochs=4", "training.num_train_epochs=1")
    return load_recipe(
        recipe_file, [*short, f"output_dir={folder / 'run'}", f"teacher.cache_dir={folder / 'c'}", *overrides]
    )


@pytest.fixture(scope="module")
def finished(recipe_file, tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("finished")
    return folder, pipeline.run(recipe_in(folder, recipe_file))


@pytest.fixture
def trained_rows(monkeypatch) -> dict:
    """Rows that each model was trained on: counts of all, of those marked, and of those without a label."""
    seen, train = {}, pipeline.train_model

    def look(what, reader, *args, **settings):
        rows = reader.rows.train
        marks = rows["is_augmented"][:] if "is_augmented" in rows.column_names else []
        seen[what] = (len(rows), sum(marks), rows["labels"][:].count(-100), settings.get("alpha_augmented"))
        return train(what, reader, *args, **settings)

    monkeypatch.setattr(pipeline, "train_model", look)
    return seen


class TestRun:
    def test_results_say_which_rows_there_were(self, finished):
        """Prevents a table that doesn't tell 64 labelled rows from 200."""
        _, results = finished
        counts = results["data"]["augmentation"]
        assert results["data"]["rows"]["train"] == counts["gold"] == 64
        assert counts["transfer"] == 16
        assert 100 < counts["augmented"] == 128 - counts["dropped"]
        assert results["distillation"]["alpha_augmented"] == 1.0
        assert unnamed(Results.model_validate(results)) == []
        table = (finished[0] / "run" / "results.md").read_text("utf-8")
        assert (
            f"64 gold rows, {counts['augmented']} altered copies, 16 unlabelled texts; alpha = 1 for copies" in table
        )
        assert "without the unlabelled ones" in table

    def test_each_model_gets_its_own_rows(self, recipe_file, tmp_path, trained_rows):
        """Prevents a teacher that learns doubtful labels, and a control that is taught by texts without any."""
        counts = pipeline.run(recipe_in(tmp_path, recipe_file, "distillation.alpha_augmented=0.8"))["data"][
            "augmentation"
        ]
        num_labelled = 64 + counts["augmented"]
        assert trained_rows == {
            "teacher": (64, 0, 0, None),
            "student": (num_labelled + 16, counts["augmented"] + 16, 16, 0.8),
            "control": (num_labelled, counts["augmented"], 0, None),
        }

    def test_added_texts_that_were_cut_are_counted(self, base, tmp_path):
        """Prevents unlabelled texts of which the models saw the start, and results that say nothing of it."""
        recipe = load_recipe(write_recipe(tmp_path, base), ["data.max_length=10"])
        data = load_task(recipe.data, recipe.name)
        teacher, _ = readers_of(recipe, data)
        before = teacher.rows.num_truncated
        long = {"text": ["a very very very very very very very very bad film"] * 2, "label": [-100] * 2}
        added = datasets.Dataset.from_dict(long, features=data.train.features)
        rows = datasets.concatenate_datasets([data.train, added])
        wide, origin = with_training_rows(recipe, rows, teacher, teacher)
        assert wide is origin and wide.rows.num_truncated == before + 2
        again, _ = with_training_rows(recipe, data.train, wide, wide)
        assert again.rows.num_truncated == before

    @pytest.mark.slow
    def test_the_same_seed_gives_the_same_results(self, finished, recipe_file, tmp_path):
        """Prevents copies that depend on the run, and answers of the cache for other texts."""
        again = pipeline.run(recipe_in(tmp_path, recipe_file))
        assert {name: model["splits"] for name, model in again["models"].items()} == {
            name: model["splits"] for name, model in finished[1]["models"].items()
        }

    @pytest.mark.slow
    def test_a_teacher_that_is_asked_at_each_step_sees_the_same_rows(self, finished, recipe_file, tmp_path):
        """Prevents deeper terms that see gold rows alone, or no alpha of the copies."""
        teacher = f"teacher.model={finished[0] / 'run' / 'teacher'}"
        given = ("teacher.finetune=null", teacher, "control=false")
        scores = []
        for name in ("true", "false"):
            results = pipeline.run(recipe_in(tmp_path / name, recipe_file, *given, f"teacher.cache={name}"))
            assert results["data"]["augmentation"]["augmented"] > 100
            scores.append(results["models"]["student"]["splits"]["validation"]["score"])
        assert scores[0] == scores[1]

    @pytest.mark.slow
    def test_without_the_section_nothing_is_said_of_it(self, base, tmp_path):
        """Prevents an alpha of rows that there are none of in the results of every run."""
        recipe = load_recipe(write_recipe(tmp_path, base), ["training.max_steps=1", "teacher.allow_near_chance=true"])
        results = pipeline.run(recipe)
        assert "augmentation" not in results["data"] and "alpha_augmented" not in results["distillation"]

    def test_numbers(self, base, tmp_path):
        """Prevents augmentation that works for classes alone."""
        rows = [{"text": row["text"], "score": number % 7 / 2} for number, row in enumerate(review_rows(48))]
        data = {"train": rows, "validation": rows[:20]}
        section = {name: str(write_jsonl(tmp_path / f"{name}.jsonl", of)) for name, of in data.items()}
        section |= {"text": "text", "label": "score", "problem_type": "regression", "max_length": 32}
        transfer = str(write_jsonl(tmp_path / "more.jsonl", [{"text": "the cast is quite good"}]))
        augmentation = {"methods": ["deletion"], "transfer_set": transfer}
        path = write_recipe(tmp_path / "recipe", base, data=section, augmentation=augmentation)
        results = pipeline.run(recipe_in(tmp_path, path, "teacher.allow_near_chance=true"))
        assert results["data"]["augmentation"]["transfer"] == 1
        assert results["data"]["augmentation"]["augmented"] > 30


class TestGoingOn:
    def test_other_copies_are_refused_unless_they_are_allowed(self, recipe_file, tmp_path, monkeypatch):
        """Prevents a student that is trained on other rows than the recipe says, because a setting was changed."""
        recipe = recipe_in(tmp_path, recipe_file)
        train = pipeline.train_model

        def interrupt(what, *args, **settings):
            if what == "student":
                raise KeyboardInterrupt
            return train(what, *args, **settings)

        monkeypatch.setattr(pipeline, "train_model", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(recipe)
        monkeypatch.setattr(pipeline, "train_model", train)
        other = recipe_in(tmp_path, recipe_file, "augmentation.fraction=0.2")
        with pytest.raises(StorageError, match=r"other values of augmentation\.fraction than"):
            pipeline.run(other)
        Path(other.augmentation.transfer_set).write_text('{"text": "one other text"}\n')
        try:
            with pytest.raises(StorageError, match="other values of augmentation than"):
                pipeline.run(recipe)
            results = pipeline.run(other, allow_changed=["augmentation"])
        finally:
            write_jsonl(
                Path(other.augmentation.transfer_set),
                [{"text": f"the {row['text']} plot"} for row in review_rows(16, seed=7)],
            )
        assert results["data"]["augmentation"]["transfer"] == 1


class TestMaskedLM:
    def test_a_teacher_without_a_head_backs_off_and_says_so(self, base, tmp_path, caplog):
        """Prevents words by a random head, and a scheme that was silently another."""
        path = write_recipe(tmp_path, base, augmentation={})
        with caplog.at_level(logging.WARNING, "distilbert_kd"):
            shown = CliRunner().invoke(app, ["augment", str(path), f"teacher.cache_dir={tmp_path / 'c'}"])
        assert shown.exit_code == 0, shown.output
        assert "has no head for masked tokens" in shown.stderr
        assert "methods                      embedding_neighbours 6" in shown.stdout

    def test_a_named_model_without_one_is_refused(self, base, tmp_path):
        """Prevents a typing error, or the wrong checkpoint, from changing the experiment."""
        recipe = load_recipe(write_recipe(tmp_path, base, augmentation={"masked_lm": str(base)}))
        with pytest.raises(TeacherError, match=r"augmentation\.masked_lm: expected a masked language model, got"):
            pipeline.run(recipe)
        assert not (tmp_path / "run" / "teacher").exists()

    def test_a_named_model_is_asked(self, base, tmp_path):
        """Prevents a model that is loaded and not used."""
        tiny_masked_lm().save_pretrained(tmp_path / "lm")
        tiny_tokenizer(tmp_path / "lm")
        path = write_recipe(tmp_path / "r", base, augmentation={"masked_lm": str(tmp_path / "lm")})
        shown = CliRunner().invoke(app, ["augment", str(path), f"teacher.cache_dir={tmp_path / 'c'}"])
        assert shown.exit_code == 0, shown.output
        assert "methods                      masked_lm 6" in shown.stdout


class TestCommands:
    def test_samples_and_numbers_before_anything_trains(self, finished, recipe_file, tmp_path):
        """Prevents hours of training on rows that nobody looked at, and a look that leaves a run folder."""
        teacher = f"teacher.model={finished[0] / 'run' / 'teacher'}"
        overrides = [f"output_dir={tmp_path / 'run'}", f"teacher.cache_dir={tmp_path / 'c'}"]
        words = ["augment", str(recipe_file), *overrides, "--num-samples", "2", "--quiet"]
        shown = CliRunner().invoke(app, [*words, teacher, "teacher.finetune=null"])
        assert shown.exit_code == 0, shown.output
        lines = shown.stdout.splitlines()
        assert sum(line.startswith("row ") for line in lines) == 2
        copies = [line for line in lines if line.startswith(("  embedding_neighbours", "  swap"))]
        assert copies and all("[" in line for line in copies)
        assert "of the 64 gold rows, from the label of" in shown.stdout
        assert not (tmp_path / "run").exists()
        untrained = CliRunner().invoke(app, words)
        counts = finished[1]["data"]["augmentation"]
        assert f"64 gold, {counts['augmented']} copies, 16 of the transfer set" in untrained.stdout
        assert "not known: the teacher is trained in the run" in untrained.stdout

    def test_the_cache_command_asks_for_the_added_rows_too(self, finished, recipe_file, tmp_path, caplog):
        """Prevents a run that asks the teacher again, offline on another machine, for what `cache` was to fetch."""
        teacher = f"teacher.model={finished[0] / 'run' / 'teacher'}"
        recipe = recipe_in(tmp_path, recipe_file, teacher, "teacher.finetune=null", "training.max_steps=1")
        pipeline.fill_cache(recipe)
        with caplog.at_level(logging.INFO, "distilbert_kd"):
            pipeline.run(recipe)
        assert "asking for the logits" not in caplog.text and "rows found in" in caplog.text

    def test_the_plan_has_it(self, recipe_file):
        """Prevents a plan with the steps of the gold rows."""
        shown = CliRunner().invoke(app, ["describe", str(recipe_file)])
        assert shown.exit_code == 0, shown.output
        plan = " ".join(shown.stdout.split())
        assert (
            "2 copies of each row by embedding_neighbours 1, swap 1; p = 0.4, K = 15, alpha = 1; 16 unlabelled" in plan
        )
        assert "at most 3 epochs, 78 steps of 8 rows" in plan  # (64 * 3 + 16) / 8 * 3

    def test_a_recipe_without_the_section(self, base, tmp_path):
        """Prevents a traceback, and a recipe that is said to augment nothing without the way to do it."""
        shown = CliRunner().invoke(app, ["augment", str(write_recipe(tmp_path, base))])
        assert shown.exit_code == RecipeError.exit_code
        assert "error: Expected a section augmentation in the recipe tiny, got none." in shown.stderr

    def test_marks_show_what_changed(self):
        """Prevents samples in which nobody sees the difference."""
        from distilbert_kd.augmentation.description import changed_share, marked

        assert marked("a good film", "a bad film") == "a [bad] film"
        assert marked("a good film", "good film") == "[-] good film"
        assert changed_share("a good film indeed", "a bad film indeed") == pytest.approx(0.25)
        assert changed_share("", "") == 0
