"""A recipe is read strictly, and one message names all its errors."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from distilbert_kd.cli import app
from distilbert_kd.errors import RecipeError
from distilbert_kd.plain_yaml import dump_yaml, parse_yaml
from distilbert_kd.pretraining.recipe import load_pretraining_recipe
from distilbert_kd.recipe import Recipe, load_recipe, recipe_schema
from distilbert_kd.recipe_messages import valid_paths


TASK = "data: {task: rte}\nteacher: {model: some/model}\n"
OWN = """
data: {train: a.csv, validation: b.csv, text: review, label: stars}
teacher: {model: some/model}
"""


@pytest.fixture
def load(tmp_path):
    def load(text, *overrides, name="my-run.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_recipe(path, overrides)

    return load


@pytest.fixture
def errors(load):
    """The lines of the message, without its first and last line."""

    def errors(text, *overrides, **options):
        with pytest.raises(RecipeError) as caught:
            load(text, *overrides, **options)
        return [line.removeprefix("  - ") for line in str(caught.value).splitlines()[1:-1]]

    return errors


class TestDefaults:
    def test_a_small_recipe(self, load):
        """A changed default would change every run that relies on it."""
        assert load(TASK).model_dump(exclude_none=True) == {
            "name": "my-run",
            "output_dir": "runs/my-run",
            "seed": 42,
            "data": {"task": "rte", "max_length": 128, "allow_unlabelled_rows": False},
            "teacher": {"model": "some/model", "allow_near_chance": False, "cache": True},
            "student": {"layers": "alternate", "freeze_embeddings": False},
            "distillation": {"temperature": 2.0, "alpha": 0.5, "alpha_augmented": 1.0, "terms": {}},
            "training": {},
            "control": True,
        }

    def test_own_data_holds_classes(self, load):
        """Without a problem type the trainer would guess from the label's type."""
        assert load(OWN).data.problem_type == "single_label_classification"
        assert load(TASK).data.problem_type is None

    def test_a_data_set_has_the_usual_splits(self, load):
        """The user would have to repeat what nearly every data set calls its splits."""
        text = "data: {dataset: imdb, text: text, label: label, validation: test}\nteacher: {model: m}\n"
        data = load(text).data
        assert (data.train, data.validation, data.test) == ("train", "test", None)

    def test_output_dir_follows_the_name(self, load):
        """Two runs with different names would meet in one folder."""
        assert load(TASK, "name=other").output_dir == "runs/other"
        assert load(TASK, "name=other", "output_dir=x").output_dir == "x"

    def test_empty_sections_have_their_defaults(self, load):
        """A section whose lines are all commented out is null in YAML."""
        assert load(TASK + "training:\nstudent:\ndistillation:\n") == load(TASK)

    def test_finetune_present_but_empty(self, load):
        """`finetune: {}` asks for fine-tuning with the defaults, null for none."""
        assert load(TASK, "teacher.finetune={}").teacher.finetune == {}
        assert load(TASK, "teacher.finetune=null").teacher.finetune is None

    def test_home_folder(self, load, monkeypatch):
        """A folder named ~ would be made in the current one."""
        monkeypatch.setenv("HOME", "/home/someone")
        assert load(TASK, "output_dir=~/r").output_dir == "/home/someone/r"

    def test_frozen(self, load):
        """A stage that changed the recipe would make recipe.yaml lie."""
        with pytest.raises(ValidationError, match="frozen"):
            load(TASK).seed = 1


class TestScalars:
    def test_five_e_minus_five_is_a_number(self, load):
        """PyYAML reads 5e-5 as text, which reaches the optimiser."""
        text = TASK + 'training: {learning_rate: 5e-5, adam_epsilon: "1e-8"}\ndistillation: {temperature: 3e0}\n'
        recipe = load(text, "teacher.finetune.learning_rate=2e-5")
        assert recipe.training == {"learning_rate": 5e-5, "adam_epsilon": 1e-8}
        assert recipe.teacher.finetune == {"learning_rate": 2e-5}
        assert recipe.distillation.temperature == 3.0

    def test_no_is_text(self, load):
        """Labels no and yes would become false and true, and `save_strategy: no` false."""
        recipe = load(OWN, "data.labels=[no, yes]", "training.save_strategy=no")
        assert recipe.data.labels == ["no", "yes"]
        assert recipe.training == {"save_strategy": "no"}

    @pytest.mark.parametrize("text", ["1:30", "2024-01-01", "010", "0x1F", "1_000", "on", "=", "<<", "1e"])
    def test_what_stays_text(self, text):
        """YAML 1.1 turns these into numbers, dates and merges without a word."""
        assert parse_yaml(text) == (text, [])

    @pytest.mark.parametrize(
        ("text", "value"), [("1", 1), ("-2", -2), ("1.", 1.0), (".5", 0.5), ("5e-5", 5e-5), ("1E3", 1e3), ("~", None)]
    )
    def test_what_becomes_a_value(self, text, value):
        """The scalars of YAML 1.2 must be what an editor shows."""
        result, _ = parse_yaml(text)
        assert result == value
        assert type(result) is type(value)

    @pytest.mark.parametrize(
        ("key", "value", "expected"),
        [
            ("seed", "true", "a whole number"),
            ("seed", "1.5", "a whole number"),
            ("seed", "1.0", "a whole number"),
            ("seed", "'1'", "a whole number"),
            ("seed", "-1", "a number, at least 0"),
            ("control", "1", "true or false"),
            ("control", "yes", "true or false"),
            ("data.max_length", "true", "a whole number"),
            ("data.max_train_rows", "0", "a number, at least 1"),
            ("data.max_validation_rows", "0", "a number, at least 1"),
            ("distillation.temperature", "true", "a number"),
            ("distillation.alpha", ".nan", "a finite number"),
            ("distillation.temperature", ".inf", "a finite number"),
            ("training", "[1]", "a section of keys"),
            ("data", "rte", "a section of keys"),
            ("teacher.model", "''", "text that is not empty"),
        ],
    )
    def test_wrong_types_are_refused(self, errors, key, value, expected):
        """A true that counts as 1, or a 1.5 that is cut to 1, is a run that nobody asked for."""
        lines = errors(TASK, f"{key}={value}")
        assert any(line.startswith(f"{key}: expected {expected}, got ") for line in lines), lines

    def test_text_that_looks_like_a_number(self, errors):
        """The user needs to know that quotes are the cure."""
        assert errors(OWN, "data.labels=[0, 1]") == [
            'data.labels[0]: expected text, got 0; write "0" in quotes if it is text',
            'data.labels[1]: expected text, got 1; write "1" in quotes if it is text',
        ]


class TestFile:
    def test_missing_file(self, tmp_path):
        """A misspelt path would end in a traceback."""
        with pytest.raises(RecipeError, match=r"nothing\.yaml, got: No such file or directory\. Give the path"):
            load_recipe(tmp_path / "nothing.yaml")

    def test_a_folder_is_no_recipe(self, tmp_path):
        """A run folder given instead of its recipe would end in a traceback."""
        with pytest.raises(RecipeError, match="got: Is a directory"):
            load_recipe(tmp_path)

    @pytest.mark.parametrize(
        ("content", "got"),
        [
            (b"", "an empty file"),
            (b"# only a comment\n", "an empty file"),
            (b"- a\n", r"\[\"a\"\]"),
            (b"text", '"text"'),
            (b"name: \xff", "Expected text in UTF-8, got something else at byte 6"),
            ("name: x".encode("utf-16"), "UTF-8"),
            (b"#" * 1_000_001, "at most 1 MB"),
            (b"a: [1", "line 1, column"),
            (b"a: 1\n b: 2", "line 2, column"),
            (b"a: 1\n---\nb: 2", "line 2"),
            (b"a: \x00", "expected YAML"),
            (b'a: "\\UFFFFFFFF"', "expected YAML"),
            (b"[" * 5000, "at most 20 levels"),
            (b"seed: " + b"9" * 5000, "expected YAML"),
        ],
    )
    def test_what_is_no_recipe(self, load, content, got):
        """Any of these would end in a traceback of the YAML library, or run for minutes."""
        with pytest.raises(RecipeError, match=got):
            load(content)

    def test_byte_order_mark(self, load):
        """Editors on Windows write one, and the first key would get a strange name."""
        assert load(b"\xef\xbb\xbf" + TASK.encode()) == load(TASK)

    @pytest.mark.parametrize(
        ("text", "got"),
        [
            ("a: &x 1\nb: *x\n", ["line 1: expected plain YAML, got the anchor &x", "line 2: .* alias \\*x"]),
            ("a: !!python/object/apply:os.system [ls]\n", ["line 1: expected plain YAML, got the tag .*os.system"]),
            ("a: !!str 1\n", ["line 1: .* tag tag:yaml.org,2002:str"]),
            ("? [a]\n: 1\n", ["line 1: expected a name as key"]),
            ("1: x\n", ["line 1: expected a name as key, got 1"]),
            ('a: "\\uD800"\n', ["line 1: .*surrogate"]),
        ],
    )
    def test_unwanted_yaml(self, errors, text, got):
        """Tags can run code, aliases can blow up a small file, and both hide what a recipe says."""
        lines = errors(text)
        assert all(any(re.match(pattern, line) for line in lines) for pattern in got), lines

    def test_duplicate_keys_name_both_lines(self, errors):
        """The last one would win without a word."""
        text = TASK + "training:\n  learning_rate: 1e-4\n  max_steps: 3\n  learning_rate: 1e-5\nseed: 1\nseed: 2\n"
        assert errors(text) == [
            "line 6: key 'learning_rate' is given twice (first in line 4); keep one",
            "line 8: key 'seed' is given twice (first in line 7); keep one",
        ]

    def test_name_that_the_file_cannot_give(self, errors, load):
        """The run folder would get a name with blanks or dots in front."""
        [line] = errors(TASK, name="my recipe.yaml")
        assert line.startswith("name: missing, and the file's name \"my recipe\" can't be one")
        assert load(TASK, "name=mine", name="my recipe.yaml").name == "mine"

    @pytest.mark.parametrize("name", ["..", "a/b", ".hidden", "-x", "a b", "''"])
    def test_names_that_leave_the_folder(self, errors, name):
        """`runs/..` is no place for a run."""
        assert errors(TASK, f"name={name}")[0].startswith("name: expected letters, digits")


class TestOverrides:
    def test_nested_values(self, load):
        """Sections that the file does not have must be made."""
        recipe = load(
            TASK,
            "training.lr_scheduler_kwargs.num_cycles=2",
            "teacher.finetune.num_train_epochs=5",
            "student.layers=[0, 2, 5]",
            "distillation.alpha={start: 0.9, end: 0.1, shape: cosine}",
            "training.optim_args=a=b",
            "seed=1",
            "seed=2",
        )
        assert recipe.training == {"lr_scheduler_kwargs": {"num_cycles": 2}, "optim_args": "a=b"}
        assert recipe.teacher.finetune == {"num_train_epochs": 5}
        assert recipe.student.layers == [0, 2, 5]
        assert recipe.distillation.alpha.model_dump() == {"start": 0.9, "end": 0.1, "shape": "cosine"}
        assert recipe.seed == 2

    def test_finetune_off(self, load):
        """A recipe for a base model must take a fine-tuned teacher by overrides alone."""
        recipe = load(TASK, "teacher.finetune.max_steps=1", "teacher.finetune=null", "teacher.model=x")
        assert recipe.teacher.finetune is None

    @pytest.mark.parametrize(
        ("override", "problem"),
        [
            ("seed", "expected section.key=value"),
            ("=3", "expected section.key=value"),
            ("--seed=3", "expected section.key=value"),
            ("training..max_steps=3", "expected section.key=value"),
            ("seed=", "expected a value after =; write seed=null for none"),
            ("seed=[1", "line 1, column 3: expected YAML"),
            ("seed=!!int 3", "line 1: expected plain YAML, got the tag"),
            ("training={max_steps: 1, max_steps: 2}", "line 1: key 'max_steps' is given twice"),
            ("teacher.model.name=x", 'teacher.model is "some/model", no section'),
        ],
    )
    def test_malformed_ones_are_named(self, errors, override, problem):
        """A dropped override is a run with other settings than its command says."""
        [line] = errors(TASK, override)
        assert line.startswith(f"override {json.dumps(override)}: {problem}")


class TestRules:
    @pytest.mark.parametrize(
        ("text", "override", "problem"),
        [
            (
                TASK,
                "data.task=null",
                "data: expected one source (task, dataset, or the files train and validation), got none",
            ),
            (TASK, "data.task=null", "data.text: missing; own data needs the name of this column"),
            (TASK, "data.task=null", "data.label: missing; own data needs the name of this column"),
            (TASK, "data.task=ax", "data.task: expected one of"),
            (TASK, "data.task=rtee", "did you mean rte?"),
            (TASK, "data.train=a.csv", 'data.train: "a.csv": not allowed with data.task; keep one source of rows'),
            (TASK, "data.dataset=x", 'data.dataset: "x": not allowed with data.task; keep one source of rows'),
            (TASK, "data.text=x", 'data.text: "x": not allowed with data.task, which knows its columns'),
            (TASK, "data.problem_type=regression", "not allowed with data.task, which knows"),
            (TASK, "data={task: rte, path: x, revision: y}", 'data.revision: "y": not allowed with data.path'),
            (OWN, "data.validation=null", "data.validation: missing; own files need it"),
            (OWN, "data.path=x", 'data.path: "x": belongs to data.task, which is missing'),
            (OWN, "data.revision=x", 'data.revision: "x": belongs to data.dataset, which is missing'),
            (OWN, "data.labels=[a, b, a]", 'data.labels: expected different names, got "a" twice'),
            (OWN, "data.labels=[a]", 'data.labels: expected a list of at least 2, got ["a"]'),
            (OWN, "data.text_pair=review", 'data: expected different columns, got "review" twice'),
            (
                OWN,
                "data={train: a, validation: b, text: t, label: l, problem_type: regression, labels: [a, b]}",
                "no classes",
            ),
            (TASK, "teacher.model='package:'", 'teacher.model: expected package:DISTRIBUTION, got "package:"'),
            (TASK, "teacher={model: 'package:a', revision: b}", 'teacher.revision: "b": not allowed with a package'),
            (TASK, "teacher={model: a, finetune: {}, labels: [a, b]}", 'teacher.labels: ["a", "b"]: not allowed with'),
            (TASK, "student.layers=alternte", "did you mean alternate?"),
            (TASK, "student.layers=[]", "student.layers: expected a list of at least 1"),
            (TASK, "student.layers=[2, 1]", "student.layers: expected increasing layers, each once, got [2, 1]"),
            (TASK, "student.layers=[1, 1]", "student.layers: expected increasing layers, each once, got [1, 1]"),
            (TASK, "student.layers=[-1, 1]", "student.layers[0]: expected a number, at least 0, got -1"),
            (TASK, "student.layers=[0, true]", "student.layers[1]: expected a whole number, got true"),
            (TASK, "student={layers: [0, 1], num_layers: 3}", "student.num_layers: expected 2, the length of"),
            (TASK, "student.num_layers=0", "student.num_layers: expected a number, at least 1, got 0"),
            (TASK, "distillation.alpha=1.01", "distillation.alpha: expected a number from 0 to 1, got 1.01"),
            (TASK, "distillation.alpha=-0.1", "distillation.alpha: expected a number from 0 to 1, got -0.1"),
            (
                TASK,
                "distillation.temperature=0",
                "distillation.temperature: expected a number of at least 0.01, got 0",
            ),
            (TASK, "distillation.alpha={start: 0, end: 2}", "distillation.alpha.end: expected a number from 0 to 1"),
            (TASK, "distillation.alpha={start: 0}", "distillation.alpha.end: missing"),
            (TASK, "distillation.alpha={start: 0, end: 1, shape: cosin}", "did you mean cosine?"),
            (TASK, "training.output_dir=x", 'training.output_dir: "x": not allowed here; set output_dir at the top'),
            (TASK, "teacher.finetune.seed=1", "teacher.finetune.seed: 1: not allowed here; set seed at the top"),
            (TASK, "training.label_smoothing_factor=0.1", "training.label_smoothing_factor: 0.1: not allowed"),
            (TASK, "training.average_tokens_across_devices=false", "not allowed: the loss is a mean over the rows"),
            (TASK, "teacher.finetune.warmup_ratio=0.1", "write warmup_steps"),
        ],
    )
    def test_refused(self, errors, text, override, problem):
        """Each would fail after minutes of loading, or train something else than was asked for."""
        lines = errors(text, override)
        assert any(problem in line for line in lines), lines

    @pytest.mark.parametrize(
        "override",
        [
            "distillation.alpha=0",
            "distillation.alpha=1",
            "distillation.alpha={start: 1, end: 0}",
            "student={layers: [0, 5], num_layers: 2}",
            "teacher={model: m, labels: [a, b], revision: main}",
            "data={task: rte, path: folder}",
            "data={task: rte, revision: abc}",
            "data={train: a, validation: b, text: t, label: l, problem_type: regression}",
            "data={dataset: d, dataset_config: c, revision: r, text: t, label: l}",
        ],
    )
    def test_taken(self, load, override):
        """A rule that is too strict would refuse what the documentation promises."""
        load(TASK, override)

    def test_rules_hold_for_recipes_made_in_python(self):
        """A library user would get past the rules that the command keeps."""
        parts = {"name": "x", "data": {"task": "rte"}, "teacher": {"model": "m"}}
        assert Recipe(**parts).output_dir == "runs/x"
        with pytest.raises(ValidationError, match="from 0 to 1"):
            Recipe(**parts, distillation={"alpha": 2})
        with pytest.raises(ValidationError, match="did you mean training.learning_rate"):
            Recipe(**parts, training={"learning_rte": 1})

    def test_tasks_are_those_of_the_data(self):
        """A task that only one of the two knows would be refused, or pass and fail later."""
        from distilbert_kd.data.tasks import TRAINABLE_TASKS

        assert recipe_schema()["$defs"]["Data"]["properties"]["task"]["anyOf"][0]["enum"] == list(TRAINABLE_TASKS)


class TestTerms:
    def test_a_number_is_a_weight(self, load):
        """The short form and the long one would differ."""
        terms = load(TASK, "distillation.terms={hidden_cosine: 1, hidden_mse: {weight: 2, layers: [[0, 1]]}}")
        assert terms.distillation.terms["hidden_cosine"] == 1.0
        assert (terms.distillation.terms["hidden_mse"].weight, terms.asks_teacher_at_each_step) == (2.0, True)
        assert not load(TASK, "distillation.terms.hidden_cosine=0").asks_teacher_at_each_step

    def test_names_are_those_that_exist(self):
        """A term or a map that was added to the code could not be asked for, or the other way round."""
        from typing import get_args

        from distilbert_kd.deep_terms import DEEP_TERMS
        from distilbert_kd.matched_layers import MATCHED_LAYERS
        from distilbert_kd.recipe import MatchedLayers, TermName

        assert get_args(TermName) == tuple(DEEP_TERMS)
        assert get_args(MatchedLayers) == tuple(MATCHED_LAYERS)

    @pytest.mark.parametrize(
        ("terms", "message"),
        [
            ("{hiden_cosine: 1}", "distillation.terms.hiden_cosine: expected one of 'hidden_cosine'"),
            ("{hidden_mse: -1}", "distillation.terms.hidden_mse: expected a number, at least 0, got -1"),
            ("{hidden_mse: {layers: last}}", "distillation.terms.hidden_mse.weight: missing"),
            ("{hidden_mse: {weight: 1, layers: lst}}", 'layers: expected one of .*, got "lst"; did you mean last'),
            ("{hidden_mse: {weight: 1, layers: [[1]]}}", r"hidden_mse.layers\[0\]: expected a list of at least 2"),
            ("{hidden_mse: {weight: 1, num_relation_heads: 3}}", "num_relation_heads: only relations have such"),
            ("{hidden_mse: {weigth: 1}}", "hidden_mse.weigth: 1: unknown key"),
        ],
    )
    def test_mistakes_are_named_where_they_are(self, load, terms, message):
        """Paths with the names of pydantic's branches in them are no paths of a recipe."""
        with pytest.raises(RecipeError, match=message):
            load(TASK, f"distillation.terms={terms}")


class TestOtherKinds:
    TEXT = "text: {files: [a.txt]}\nteacher: {model: m}\n"

    def test_a_recipe_of_another_command_is_named_as_such(self, load, tmp_path):
        """A shipped recipe was called broken, with advice that would have broken it."""
        with pytest.raises(RecipeError, match="`distilbert-kd pretrain`"):
            load(self.TEXT)
        (tmp_path / "task.yaml").write_text(TASK, encoding="utf-8")
        with pytest.raises(RecipeError, match="`distilbert-kd run`"):
            load_pretraining_recipe(tmp_path / "task.yaml")

    def test_both_sections_are_an_unknown_key(self, load):
        """A recipe with a stray section would be sent to the wrong command."""
        with pytest.raises(RecipeError, match="text: .* unknown key"):
            load(TASK + "text: {files: [a.txt]}\n")

    def test_validate_reads_either(self, tmp_path):
        """There was no way to check a recipe of pretraining before hours of text were read."""
        (tmp_path / "general.yaml").write_text(self.TEXT, encoding="utf-8")
        result = CliRunner().invoke(app, ["validate", str(tmp_path / "general.yaml")])
        assert result.exit_code == 0
        assert "soft_targets: 5.0" in result.stdout


class TestMessages:
    def test_all_errors_in_one_message(self, errors, load):
        """A user would correct one error per start."""
        text = """
nme: x
temperature: 3
data: {task: rte, max_lenght: 128, text: a}
teacher: {modle: x, finetune: {learning_rte: 1e-4, fp16: 1}}
student: {layers: [2, 1], num_layers: 0}
distillation: {alpha: 1.5, temprature: 2}
training: {evaluation_strategy: epoch}
seed: 1
seed: 2
"""
        assert sorted(errors(text, "oops")) == sorted(
            [
                "line 10: key 'seed' is given twice (first in line 9); keep one",
                'override "oops": expected section.key=value',
                'nme: "x": unknown key; did you mean name?',
                "temperature: 3: unknown key; did you mean distillation.temperature?",
                "data.max_lenght: 128: unknown key; did you mean data.max_length?",
                'data.text: "a": not allowed with data.task, which knows its columns and labels',
                'teacher.modle: "x": unknown key; did you mean teacher.model?',
                "teacher.model: missing; the recipe needs it",
                "teacher.finetune.learning_rte: 0.0001: not an argument of transformers.TrainingArguments; "
                "did you mean teacher.finetune.learning_rate?",
                "teacher.finetune.fp16: expected true or false, got 1",
                "student.layers: expected increasing layers, each once, got [2, 1]",
                "student.num_layers: expected a number, at least 1, got 0",
                "student.num_layers: expected 2, the length of student.layers, got 0; leave it out or make them agree",
                "distillation.alpha: expected a number from 0 to 1, got 1.5",
                "distillation.temprature: 2: unknown key; did you mean distillation.temperature?",
                'training.evaluation_strategy: "epoch": transformers 5 has no such argument; write eval_strategy',
            ]
        )
        with pytest.raises(RecipeError, match=r"\AThe recipe .*my-run\.yaml has 16 errors:\n") as caught:
            load(text, "oops")
        assert caught.value.exit_code == 2
        assert str(caught.value).endswith("Every key is in recipes/README.md.")

    def test_missing_sections(self, errors):
        """An almost empty recipe must say what every recipe needs."""
        assert errors("seed: 1\n") == ["data: missing; the recipe needs it", "teacher: missing; the recipe needs it"]

    def test_a_training_argument_at_the_top(self, errors):
        """The nearest key stands in another section."""
        assert errors(TASK + "learning_rate: 1e-4\n") == [
            "learning_rate: 0.0001: unknown key; did you mean training.learning_rate?"
        ]

    def test_long_values_are_cut(self, errors):
        """One value could fill the terminal."""
        [line] = errors(TASK, "seed=" + "x" * 500)
        assert len(line) < 120


class TestWriting:
    def test_the_written_recipe_is_the_same_recipe(self, load):
        """The recipe in the run folder would not repeat the run."""
        recipe = load(
            OWN,
            "data.labels=[no, '1e5', '1', 'null', 'ü']",
            "training={learning_rate: 5e-5, eval_steps: null, lr_scheduler_kwargs: {}}",
            "teacher.finetune={}",
            "distillation.temperature={start: 4, end: 1}",
        )
        assert load(recipe.to_yaml()) == recipe

    def test_other_readers_get_the_same_values(self, load):
        """A tool that reads YAML 1.1 would see false instead of no, and text instead of a number."""
        recipe = load(OWN, "data.labels=[no, '1e5', '1:30']", "training.learning_rate=5e-5")
        values = yaml.safe_load(recipe.to_yaml())
        assert values["data"]["labels"] == ["no", "1e5", "1:30"]
        assert values["training"]["learning_rate"] == 5e-5

    def test_no_aliases(self):
        """A list that is used twice would be written as an alias, which is refused on reading."""
        shared = ["a", "b"]
        assert parse_yaml(dump_yaml({"x": shared, "y": shared})) == ({"x": shared, "y": shared}, [])

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_any_text_survives(self, text):
        """A class name could come back as another text, a number or a date."""
        assert parse_yaml(dump_yaml({"x": text}))[0] == {"x": text}


def test_schema():
    """An editor would complete keys that are refused, or underline keys that are right."""
    schema = recipe_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["required"] == ["data", "teacher"]
    assert schema["additionalProperties"] is False
    assert "learning_rate" in schema["$defs"]["TrainingArguments"]["properties"]
    assert schema["properties"]["training"]["$ref"] == "#/$defs/TrainingArguments"


def test_valid_paths():
    """The nearest key is looked for among these."""
    paths = list(valid_paths(Recipe))
    assert {"name", "data.max_length", "distillation.alpha.start", "teacher.finetune"} <= set(paths)


def test_no_torch(tmp_path):
    """`validate` would take seconds before its first word."""
    (tmp_path / "r.yaml").write_text(TASK + "training: {learning_rate: 1e-4}\n")
    code = (
        "import sys; from pathlib import Path; from distilbert_kd.recipe import load_recipe;"
        f"load_recipe(Path({str(tmp_path / 'r.yaml')!r}), ['seed=1']);"
        "sys.exit(', '.join({'torch', 'transformers', 'datasets', 'evaluate'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


_KEYS = st.sampled_from([*(path.rpartition(".")[2] for path in valid_paths(Recipe)), "learning_rate", "<<", "x y", ""])
_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(10**300, 10**400), st.floats(), st.text(max_size=8), _KEYS
)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4), max_leaves=12
)
_RECIPES = st.dictionaries(st.sampled_from(list(Recipe.model_fields)), _VALUES, max_size=9)
_TEXTS = st.one_of(
    st.text(),
    st.text(alphabet="ab:-?!&*[]{},#|>'\"%@`\\\n\t 019.eE<=~"),
    _VALUES.map(dump_yaml),
    _RECIPES.map(dump_yaml),
    st.tuples(
        _RECIPES.map(lambda values: {**values, "data": {"task": "rte"}}).map(dump_yaml), st.text(max_size=5)
    ).map("".join),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=_TEXTS, overrides=st.lists(st.text(max_size=20) | st.builds("{}={}".format, _KEYS, _TEXTS), max_size=2))
def test_any_text_is_a_recipe_or_a_recipe_error(tmp_path: Path, text, overrides):
    """Any other exception would reach the user as a traceback, without the file's name."""
    path = tmp_path / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    try:
        recipe = load_recipe(path, overrides)
    except RecipeError as error:
        assert str(path) in str(error)
        str(error).encode()
    else:
        path.write_text(recipe.to_yaml(), encoding="utf-8")
        assert load_recipe(path) == recipe  # what the run folder keeps repeats the run


def test_thousands_of_errors_are_counted(tmp_path):
    """A file that is no recipe would fill the terminal with a line for each of its own."""
    path = tmp_path / "any.yaml"
    path.write_text("a: 1\n" * 1000)
    with pytest.raises(RecipeError, match=r"and 952 more") as error:
        load_recipe(path)
    assert str(error.value).count("\n") < 60
