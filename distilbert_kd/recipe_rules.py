"""Rules of a recipe that join several keys. Each takes a section as given and returns problems, one line each.

They look at plain values and put up with values of a wrong type, which are reported elsewhere, so that one message can
name every error of a recipe.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from distilbert_kd.training_arguments import shown


__all__ = ["augmentation_problems", "data_problems", "distillation_problems", "student_problems", "teacher_problems"]

_FILES = ("train", "validation", "test")
_OWN_DATA = ("text", "text_pair", "label", "problem_type", "labels")


def data_problems(data: Mapping[str, Any]) -> list[str]:
    """Exactly one source of rows, and the keys that belong to it."""
    given = {key: value for key, value in data.items() if value is not None}
    problems = _task_problems(given) if "task" in given else _own_data_problems(given)
    return [*problems, *_repeated_labels("data", given)]


def augmentation_problems(augmentation: Mapping[str, Any]) -> list[str]:
    """Something is added, and keys belong to what is used."""
    given = {key: value for key, value in augmentation.items() if value is not None}
    problems = []
    if given.get("num_copies") == 0 and "transfer_set" not in given:
        problems.append("augmentation.num_copies: 0 without a transfer_set adds nothing; leave the section out")
    if "transfer_set" not in given:
        problems += _refuse("augmentation", given, ["max_transfer_rows"], "belongs to transfer_set, which is missing")
    methods = given.get("methods")
    if isinstance(methods, Mapping | list) and "masked_lm" not in methods:
        problems += _refuse("augmentation", given, ["masked_lm"], "belongs to the method masked_lm, which is not used")
    return problems


def teacher_problems(teacher: Mapping[str, Any]) -> list[str]:
    """The keys that go with the kind of teacher."""
    given = {key: value for key, value in teacher.items() if value is not None}
    model = given.get("model")
    problems = []
    if isinstance(model, str) and model.startswith("package:"):
        if not model.removeprefix("package:").strip():
            problems.append(f"teacher.model: expected package:DISTRIBUTION, got {shown(model)}")
        problems += _refuse("teacher", given, ["revision"], "not allowed with a package; its version decides")
    if "finetune" in given:
        problems += _refuse("teacher", given, ["labels"], "not allowed with finetune; the task names the outputs")
    return [*problems, *_repeated_labels("teacher", given)]


def student_problems(student: Mapping[str, Any]) -> list[str]:
    """A list of layers is increasing, and as long as `num_layers` says."""
    layers, num_layers = student.get("layers"), student.get("num_layers")
    if not isinstance(layers, list) or not all(type(layer) is int for layer in layers):
        return []
    problems = []
    if any(first >= second for first, second in pairwise(layers)):
        problems.append(f"student.layers: expected increasing layers, each once, got {shown(layers)}")
    if isinstance(num_layers, int) and num_layers != len(layers):
        expected = f"expected {len(layers)}, the length of student.layers, got {num_layers}"
        problems.append(f"student.num_layers: {expected}; leave it out or make them agree")
    return problems


def distillation_problems(distillation: Mapping[str, Any]) -> list[str]:
    """The temperature is one that the trainer takes and alpha is a share, at both ends of a schedule too."""
    problems = []
    for name, expected, is_fitting in (
        ("temperature", "a number of at least 0.01", lambda number: number >= 0.01),
        ("alpha", "a number from 0 to 1", lambda number: 0 <= number <= 1),
    ):
        value = distillation.get(name)
        ends = {f".{end}": value.get(end) for end in ("start", "end")} if isinstance(value, Mapping) else {"": value}
        for end, number in ends.items():
            if isinstance(number, int | float) and not isinstance(number, bool) and not is_fitting(number):
                problems.append(f"distillation.{name}{end}: expected {expected}, got {shown(number)}")
    terms = distillation.get("terms")
    for name, term in terms.items() if isinstance(terms, Mapping) else ():
        if isinstance(term, Mapping) and term.get("num_relation_heads") is not None and not name.endswith("_relation"):
            problems.append(f"distillation.terms.{name}.num_relation_heads: only relations have such; leave it out")
    return problems


def _task_problems(given: Mapping[str, Any]) -> list[str]:
    another_source = ("dataset", "dataset_config", *_FILES)
    problems = _refuse("data", given, another_source, "not allowed with data.task; keep one source of rows")
    problems += _refuse("data", given, _OWN_DATA, "not allowed with data.task, which knows its columns and labels")
    if "path" in given:
        problems += _refuse("data", given, ["revision"], "not allowed with data.path; a folder has no revision")
    return problems


def _own_data_problems(given: Mapping[str, Any]) -> list[str]:
    problems = _refuse("data", given, ["path"], "belongs to data.task, which is missing")
    if "dataset" not in given:
        problems += _refuse("data", given, ["dataset_config", "revision"], "belongs to data.dataset, which is missing")
        if any(key in given for key in _FILES):
            missing = [key for key in ("train", "validation") if key not in given]
            problems += [f"data.{key}: missing; own files need it" for key in missing]
        else:
            problems.append("data: expected one source (task, dataset, or the files train and validation), got none")
    missing = [key for key in ("text", "label") if key not in given]
    problems += [f"data.{key}: missing; own data needs the name of this column" for key in missing]
    if given.get("problem_type") == "regression":
        problems += _refuse("data", given, ["labels"], "not allowed with regression, which has no classes")
    columns = [given[key] for key in ("text", "text_pair", "label") if isinstance(given.get(key), str)]
    return [*problems, *(f"data: expected different columns, got {shown(name)} twice" for name in _repeated(columns))]


def _refuse(section: str, given: Mapping[str, Any], keys: Sequence[str], reason: str) -> list[str]:
    return [f"{section}.{key}: {shown(given[key])}: {reason}" for key in keys if key in given]


def _repeated_labels(section: str, given: Mapping[str, Any]) -> list[str]:
    labels = given.get("labels")
    names = [label for label in labels if isinstance(label, str)] if isinstance(labels, list) else []
    return [f"{section}.labels: expected different names, got {shown(name)} twice" for name in _repeated(names)]


def _repeated(names: list[str]) -> list[str]:
    return list(dict.fromkeys(name for position, name in enumerate(names) if name in names[:position]))
