"""Which layers to keep: what is measured, on which rows, and what comes out."""

import json
import logging
from pathlib import Path

import datasets
import numpy as np
import pytest
from typer.testing import CliRunner

from distilbert_kd import cli, held_out, layer_search_report, layer_search_run
from distilbert_kd.data.task_data import TaskData
from distilbert_kd.errors import DataError, RecipeError, StorageError
from distilbert_kd.held_out import HELD_OUT, hold_out
from distilbert_kd.layer_importance import Nearness
from distilbert_kd.layer_search import Candidate, candidate_maps, search_layers
from distilbert_kd.layer_search_report import render_search, write_report
from distilbert_kd.layer_search_run import SearchSize, run_layer_search
from distilbert_kd.recipe import load_recipe
from distilbert_kd.student.build import build_student
from tests.tagged_layers import tagged_bert, two_that_stand_in_for_each_other
from tests.tiny_runs import review_rows, save_tiny_base, write_jsonl, write_recipe


class TestCandidates:
    def test_equal_maps_are_one_candidate(self):
        """Prevents paying twice for one student under two names."""
        assert candidate_maps(2, 1) == [
            Candidate(("distilbert", "alternate", "first"), (0,)),
            Candidate(("alternate_last", "last"), (1,)),
        ]
        merged = candidate_maps(6, 3, {"importance": [0, 2, 5], "mine": [0, 3, 5]})
        assert [each.layers for each in merged] == [(0, 2, 5), (0, 2, 4), (1, 3, 5), (0, 1, 2), (3, 4, 5), (0, 3, 5)]
        assert merged[0].names == ("distilbert", "importance")

    def test_a_map_that_does_not_fit_is_refused(self):
        """Prevents a list of other depth from winning over maps of fewer layers."""
        with pytest.raises(RecipeError, match="num_layers is 3"):
            candidate_maps(6, 3, {"mine": [0, 5]})


def search(judge=two_that_stand_in_for_each_other, distil=None, **settings):
    teacher = tagged_bert()
    distil = distil or (lambda layers, seed: build_student(teacher, layers=layers))
    return search_layers(teacher, 2, two_that_stand_in_for_each_other, judge, distil, [1, 2], **settings)


class TestSearch:
    def test_what_is_distilled_ranks(self):
        """Prevents a ranking by the untrained cut, which the distillations then cost time for nothing."""
        wanted = {(1, 3): 0.1, (0, 1): 0.2, (2, 3): 0.3, (0, 2): 0.4, (0, 3): 0.5}
        trained = {}

        def distil(layers, seed):
            student = build_student(tagged_bert(), layers=layers)
            trained[id(student)] = (student, wanted[tuple(layers)] + 0.01 * seed)
            return student

        def judge(model):
            return Nearness(trained[id(model)][1] if id(model) in trained else 9.0, 0.5)

        found = search(judge, distil)
        assert [result.candidate.layers for result in found.ranking] == list(wanted)
        assert found.ranking[0].divergence == pytest.approx(0.115)
        assert {result.cut.divergence for result in found.ranking} == {9.0}

    def test_equals_rank_by_their_layers_and_twice_the_same(self):
        """Prevents a ranking that changes when nothing else does."""
        found = search(judge=lambda model: Nearness(1.0, 0.5))
        layers = [result.candidate.layers for result in found.ranking]
        assert layers == sorted(layers)
        assert found == search(judge=lambda model: Nearness(1.0, 0.5))

    def test_backward_and_given_maps(self):
        """Prevents an option that changes nothing."""
        names = {name for result in search().ranking for name in result.candidate.names}
        assert names == {"distilbert", "alternate", "alternate_last", "first", "last", "importance", "backward"}
        less = search(is_backward_wanted=False, given={"recipe": [1, 2]})
        assert {name for result in less.ranking for name in result.candidate.names} == names - {"backward"} | {
            "recipe"
        }

    def test_a_wrong_depth_is_refused_before_any_pass(self):
        """Prevents minutes of importance before the message."""

        def never(model):
            raise AssertionError("measured")

        with pytest.raises(RecipeError, match="num_layers"):
            search_layers(tagged_bert(), 5, never, never, never, [1])


def task(num_rows: int, num_unlabelled: int = 0) -> TaskData:
    labels = [i % 2 if i >= num_unlabelled else -100 for i in range(num_rows)]
    train = datasets.Dataset.from_dict({"text": [f"row {i}" for i in range(num_rows)], "label": labels})
    reported = datasets.Dataset.from_dict({"text": ["reported"], "label": [1]})
    return TaskData("t", ("a", "b"), "mnli", train, {"validation": reported}, {}, "here", ())


class TestHoldOut:
    def test_no_row_is_on_both_sides_and_none_is_lost(self):
        """Prevents judging a student by rows that it learnt by heart, or by the split that a run reports."""
        held = hold_out(task(100), 20, seed=3)
        train, judging = held.train["text"][:], held.evaluation[HELD_OUT]["text"][:]
        assert (len(train), len(judging), list(held.evaluation)) == (80, 20, [HELD_OUT])
        assert set(train) | set(judging) == {f"row {i}" for i in range(100)}
        assert not set(train) & set(judging)

    def test_the_seed_alone_decides(self):
        """Prevents a teacher of one search from having seen the rows that judge in the next."""
        drawn = [hold_out(task(100), 20, seed).evaluation[HELD_OUT]["text"][:] for seed in (3, 3, 4)]
        assert drawn[0] == drawn[1]
        assert drawn[0] != drawn[2]

    def test_rows_without_a_label_do_not_judge(self):
        """Prevents a score over rows that have none."""
        held = hold_out(task(100, num_unlabelled=90), 50, seed=0)
        assert len(held.evaluation[HELD_OUT]) == 2  # a quarter of ten
        assert -100 not in held.evaluation[HELD_OUT]["label"][:]
        with pytest.raises(DataError, match="at least 4 labelled"):
            hold_out(task(100, num_unlabelled=97), 50, seed=0)


@pytest.fixture(scope="module")
def first_search(tmp_path_factory):
    """The command from a base model on: the teacher is fine-tuned first."""
    folder = tmp_path_factory.mktemp("search")
    base = save_tiny_base(folder / "base")
    recipe = write_recipe(folder / "recipe", base, student={"layers": [1, 2]})
    logger = logging.getLogger("distilbert_kd")
    before = logger.handlers, logger.propagate, logger.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_quieten_libraries", lambda show_bars: None)
        arguments = ["layers", str(recipe), "--rows", "32", "--held-out", "16", "--seeds", "2", "--quiet"]
        result = CliRunner().invoke(cli.app, [*arguments, f"teacher.cache_dir={folder / 'cache'}"])
    logger.handlers, logger.propagate, level = before
    logger.setLevel(level)
    return result, folder / "recipe"


def record_of(folder: Path) -> dict:
    return json.loads((folder / "layers.json").read_text("utf-8"))


class TestCommand:
    def test_table_picture_and_numbers(self, first_search):
        """Prevents a table that doesn't say what was written down, or in another order."""
        result, folder = first_search
        assert result.exit_code == 0, result.output
        out = folder / "run-layers"
        assert not (folder / "run").exists()  # a run refuses a folder that is in use
        assert {path.name for path in out.iterdir()} == {
            "layers.json", "layers.md", "layers.png", "recipe.yaml", "teacher"
        }  # fmt: skip
        assert (out / "layers.md").read_text("utf-8") in result.stdout
        assert (out / "layers.png").read_bytes().startswith(b"\x89PNG")
        record = record_of(out)
        means = [np.mean([each["divergence"] for each in entry["distilled"]]) for entry in record["ranking"]]
        assert means == sorted(means)
        assert record["rows"] == {"sample": 32, "importance": 16, HELD_OUT: 16}
        assert record["seeds"] == [42, 43]
        assert [1, 2] in [entry["candidate"]["layers"] for entry in record["ranking"]]
        for entry in record["ranking"]:  # each was trained, and each seed is another training
            assert len({entry["cut"]["divergence"], *(each["divergence"] for each in entry["distilled"])}) == 3

    def test_the_teacher_learns_from_no_row_that_judges(self, first_search, tmp_path, monkeypatch):
        """Prevents a teacher, or a student, that knows the rows by heart which rank the maps."""
        _, folder = first_search
        seen = {}

        class Stop(Exception):
            pass

        def training(what, reader, *args, **kwargs):
            seen["train"], seen["judging"] = (
                {tuple(ids) for ids in rows["input_ids"]}
                for rows in (reader.rows.train, reader.rows.evaluation[HELD_OUT])
            )
            seen["what"] = what, len(reader.rows.train)
            raise Stop

        # Each text once, so that a row can be told by its tokens.
        texts = list({row["text"]: row for row in review_rows(400)}.values())
        data = f"data.train={write_jsonl(tmp_path / 'train.jsonl', texts)}"
        monkeypatch.setattr(held_out, "train_model", training)
        with pytest.raises(Stop):
            run_layer_search(load_recipe(folder / "recipe.yaml", [data]), SearchSize(32, 16), tmp_path / "out")
        assert seen["what"] == ("teacher", len(texts) - 16)
        assert not seen["train"] & seen["judging"]

    def test_again_from_its_teacher_and_with_other_reported_rows(self, first_search, tmp_path):
        """Prevents findings that can't be repeated, and a look at the split that a run reports."""
        _, folder = first_search
        others = [{**row, "label": "positive"} for row in review_rows(30, seed=5)]
        recipe = load_recipe(
            folder / "recipe.yaml",
            [
                f"data.validation={write_jsonl(tmp_path / 'validation.jsonl', others)}",
                f"teacher.model={folder / 'run-layers' / 'teacher'}",
                "teacher.finetune=null",
                "teacher.cache=false",
            ],
        )
        text, out = run_layer_search(recipe, SearchSize(32, 16, num_seeds=2), tmp_path / "out")
        first, again = record_of(folder / "run-layers"), record_of(out)
        for part in ("importance", "ranking", "teacher_score"):
            assert again[part] == first[part]
        assert "the teacher was there already and may have" in text
        assert "neither the teacher nor a student" in (folder / "run-layers" / "layers.md").read_text("utf-8")

    def test_students_are_the_recipes(self, first_search, tmp_path, monkeypatch):
        """Prevents maps that are ranked for another objective, or another architecture, than the run will have."""
        _, folder = first_search
        seen = {}

        class Stop(Exception):
            pass

        def training(what, reader, *args, **kwargs):
            seen.update(kwargs, architecture=reader.model.config.model_type, num_rows=len(reader.rows.train))
            raise Stop

        teacher = [f"teacher.model={folder / 'run-layers' / 'teacher'}", "teacher.finetune=null"]
        asked = [
            "student.architecture=distilbert",
            "distillation.terms={hidden_cosine: 0.5}",
            "distillation.alpha=0.3",
        ]
        monkeypatch.setattr(held_out, "train_model", training)
        with pytest.raises(Stop):
            run_layer_search(
                load_recipe(folder / "recipe.yaml", [*teacher, *asked, "teacher.cache=false"]),
                SearchSize(32, 16, is_backward_wanted=False),
                tmp_path / "out",
            )
        assert (seen["architecture"], seen["num_rows"], seen["alpha"]) == ("distilbert", 32, 0.3)
        assert seen["terms"]["hidden_cosine"].weight == 0.5
        assert seen["teacher"] is not None and seen["teacher_logits"] is None

    def test_steps_are_those_of_the_augmented_rows(self, first_search, tmp_path, monkeypatch):
        """Prevents a report that counts the steps of the gold rows where three times as many were trained."""
        _, folder = first_search
        teacher = f"teacher.model={folder / 'run-layers' / 'teacher'}"
        more = ["augmentation={num_copies: 3, methods: [swap]}", teacher, "teacher.finetune=null"]
        recipe = load_recipe(folder / "recipe.yaml", [*more, f"teacher.cache_dir={tmp_path / 'cache'}"])
        seen = {}
        monkeypatch.setattr(layer_search_run, "search_layers", lambda *args: None)
        monkeypatch.setattr(layer_search_run, "_write", lambda folder, recipe, search, about: seen.update(about))
        run_layer_search(recipe, SearchSize(32, 16), tmp_path / "out")
        assert seen["rows"]["sample"] > 90
        assert seen["num_steps"] == -(-seen["rows"]["sample"] // 8)

    def test_another_start_of_the_student_is_refused(self, first_search, tmp_path):
        """Prevents a ranking of cuts of a model that no student is made of."""
        _, folder = first_search
        recipe = load_recipe(folder / "recipe.yaml", ["student.init_from=other"])
        with pytest.raises(RecipeError, match=r"student\.init_from=null"):
            run_layer_search(recipe, SearchSize(), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_distillations_of_a_step_or_two_are_refused(self, first_search, tmp_path):
        """Prevents a table of "distilled" maps that have not moved: a warm-up begins at no learning rate."""
        _, folder = first_search
        with pytest.raises(RecipeError, match="at least 4 steps, got 2"):
            run_layer_search(load_recipe(folder / "recipe.yaml"), SearchSize(16, 16), tmp_path / "out")

    def test_a_folder_in_use_is_refused(self, first_search):
        """Prevents the loss of findings."""
        _, folder = first_search
        with pytest.raises(StorageError, match="nothing is overwritten"):
            run_layer_search(load_recipe(folder / "recipe.yaml"), SearchSize())


class TestReport:
    @pytest.fixture
    def record(self, first_search):
        return record_of(first_search[1] / "run-layers")

    def test_cells(self, record):
        """Prevents a column under another's heading, and a spread of something else than the seeds."""
        record |= {"is_regression": True, "seeds": [1, 2], "teacher_score": 0.9, "importance_score": 0.95}
        near = [{"divergence": 0.25, "score": 0.80}, {"divergence": 0.75, "score": 0.84}]
        candidate = {"names": ["first", "importance"], "layers": [0, 1]}
        record["ranking"] = [{"candidate": candidate, "cut": {"divergence": 2.0, "score": 0.5}, "distilled": near}]
        record["importance"] = [
            {"layer": 0, "without": None},
            {"layer": 1, "without": {"divergence": 0.125, "score": 0.9}},
        ]
        lines = render_search(record).splitlines()
        assert "| 1 | 0 1 | first, importance | 0.5000 ± 0.3536 | 82.0 ± 2.8 | 2.0000 | 50.0 |" in lines
        assert "| 0 | can't be removed |  |  |" in lines
        assert "| 1 | 0.1250 | 90.0 | -5.0 |" in lines
        assert any("squared difference, distilled" in line for line in lines)

    def test_without_matplotlib_a_line_in_place_of_the_picture(self, record, tmp_path, monkeypatch, caplog):
        """Prevents a search that fails at its end because of a package that nothing else needs."""
        monkeypatch.setattr(layer_search_report, "find_spec", lambda name: None)
        with caplog.at_level(logging.INFO, "distilbert_kd"):
            write_report(tmp_path, record)
        assert {path.name for path in tmp_path.iterdir()} == {"layers.json", "layers.md"}
        assert "pip install matplotlib" in caplog.text
