"""Training arguments are checked against the installed transformers without importing it."""

import dataclasses
import subprocess
import sys

import pytest

from distilbert_kd.training_arguments import check_training_arguments, known_training_arguments, shown


def check(**values):
    return check_training_arguments(values, "training")


def test_names_are_those_of_the_class():
    """An argument that the parser misses would be refused although transformers knows it."""
    from transformers import TrainingArguments

    fields = dataclasses.fields(TrainingArguments)
    assert list(known_training_arguments()) == [field.name for field in fields]


def test_choices_are_those_of_the_class():
    """A choice read wrongly would refuse a valid scheduler or optimiser."""
    from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType
    from transformers.training_args import OptimizerNames

    known = known_training_arguments()
    for name, enum in (
        ("eval_strategy", IntervalStrategy),
        ("save_strategy", SaveStrategy),
        ("lr_scheduler_type", SchedulerType),
        ("optim", OptimizerNames),
    ):
        assert known[name].choices == tuple(member.value for member in enum)
    assert known["train_sampling_strategy"].choices == ("random", "sequential", "group_by_length", "batch_rebalance")


def test_every_default_passes():
    """A check stricter than the class would refuse what transformers itself sets."""
    from transformers import TrainingArguments

    refused_here = {"output_dir", "seed", "data_seed", "hub_token", "resume_from_checkpoint", "local_rank"}
    refused_here |= {"do_train", "do_eval", "do_predict"}
    values = {
        field.name: field.default if field.default is not dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(TrainingArguments)
        if field.name not in refused_here
    }
    values = {name: getattr(value, "value", value) for name, value in values.items()}
    assert check_training_arguments(values, "training") == (values, [])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("learning_rate", "5e-5", 5e-5),
        ("learning_rate", 1, 1),
        ("max_steps", "1e3", 1000),
        ("max_steps", 100.0, 100),
        ("num_train_epochs", 3, 3),
        ("save_strategy", False, "no"),
        ("eval_strategy", "epoch", "epoch"),
        ("fsdp", True, True),
        ("report_to", ["tensorboard"], ["tensorboard"]),
        ("lr_scheduler_kwargs", {"num_cycles": 2}, {"num_cycles": 2}),
        ("include_num_input_tokens_seen", True, True),
        ("trackio_static_space_id", False, False),
        ("eval_steps", None, None),
    ],
)
def test_values_that_fit(name, value, expected):
    """`5e-5` is text for many YAML readers and would reach the optimiser as text; all else passes untouched."""
    checked, problems = check(**{name: value})
    assert problems == []
    assert checked == {name: expected}
    assert type(checked[name]) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("learning_rate", "fast", "a number"),
        ("learning_rate", True, "a number"),
        ("learning_rate", None, "a number"),
        ("learning_rate", float("nan"), "a number"),
        ("learning_rate", "inf", "a number"),
        ("max_steps", True, "a whole number"),
        ("max_steps", 2.5, "a whole number"),
        ("fp16", 1, "true or false"),
        ("fp16", "yes", "true or false"),
        ("report_to", 3, "null or text or a list of texts"),
        ("include_for_metrics", [1], "a list of texts"),
        ("run_name", 3, "text or null"),
    ],
)
def test_values_that_do_not_fit(name, value, expected):
    """A wrong type would fail in the middle of the run, or silently count: true is 1 step for Python."""
    _, problems = check(**{name: value})
    assert problems == [f"training.{name}: expected {expected}, got {shown(value)}"]


def test_a_wrong_choice_names_the_nearest():
    """A misspelt scheduler would be found only after the data and the teacher were loaded."""
    _, [problem] = check(lr_scheduler_type="linaer")
    assert "(linear?)" in problem
    assert "cosine" in problem


def test_unknown_names_get_the_nearest():
    """A misspelt argument would be dropped or end in a TypeError without its path."""
    _, [problem] = check_training_arguments({"learning_rte": 1e-4}, "teacher.finetune")
    expected = "not an argument of transformers.TrainingArguments; did you mean teacher.finetune.learning_rate?"
    assert problem == f"teacher.finetune.learning_rte: 0.0001: {expected}"


@pytest.mark.parametrize(
    ("name", "replacement"),
    [
        ("evaluation_strategy", "eval_strategy"),
        ("warmup_ratio", "warmup_steps"),
        ("group_by_length", "train_sampling_strategy: group_by_length"),
        ("overwrite_output_dir", "leave it out"),
        ("logging_dir", "TENSORBOARD_LOGGING_DIR"),
        ("no_cuda", "use_cpu"),
    ],
)
def test_removed_names_get_their_replacement(name, replacement):
    """Recipes written for transformers 4 are everywhere."""
    _, [problem] = check(**{name: True})
    assert "transformers 5 has no such argument" in problem
    assert replacement in problem


def test_every_replacement_exists():
    """A message that names another removed argument would send the user in a circle."""
    from distilbert_kd.training_arguments import _OWNED, _REMOVED

    known = known_training_arguments()
    assert not set(_REMOVED) & set(known)
    assert set(_OWNED) <= set(known)
    for text in _REMOVED.values():
        if text.startswith("write "):
            assert text.removeprefix("write ").split(":")[0].split(" ")[0] in known, text


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("output_dir", "x", "output_dir at the top level"),
        ("seed", 1, "seed at the top level"),
        ("data_seed", 1, "seed at the top level"),
        ("hub_token", "hf_x", "HF_TOKEN"),
        ("resume_from_checkpoint", "x", "goes on by itself"),
        ("label_smoothing_factor", 0.1, "leave it out"),
        ("average_tokens_across_devices", False, "leave it out"),
    ],
)
def test_what_the_run_decides_is_refused(name, value, instead):
    """The value would be ignored without a word, and a token would end in files that are pushed."""
    checked, [problem] = check(**{name: value})
    assert checked == {}
    assert problem.startswith(f"training.{name}: ")
    assert instead in problem


def test_a_token_is_not_repeated_in_the_message():
    """A secret in a recipe must not end in logs as well."""
    _, [problem] = check(hub_token="hf_secret")
    assert "hf_secret" not in problem


def test_harmless_values_of_refused_names_pass():
    """The defaults written out change nothing."""
    values = {"label_smoothing_factor": 0.0, "average_tokens_across_devices": True}
    assert check(**values) == (values, [])


def test_no_torch():
    """Reading the class by import would take seconds before `validate` answers."""
    code = (
        "import sys; from distilbert_kd.training_arguments import known_training_arguments as known; known();"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
