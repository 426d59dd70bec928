"""Do teacher and student speak of the same things? Checked before the first step.

Nothing downstream would notice if they did not: logits of another shape broadcast, swapped label names train a
student to say the opposite, another vocabulary turns every text into a different one. The loss looks plausible.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from distilbert_kd.errors import TeacherError


__all__ = [
    "check_same_tokenizer",
    "check_teacher",
    "label_names",
    "output_layer",
    "output_order",
    "tokenizer_identity",
    "tokenizer_sha256",
]

_UNNAMED_LABEL = re.compile(r"label_\d+")
#: What teachers of natural language inference call GLUE's labels.
_SAME_NAMES = {
    **dict.fromkeys(("entail", "entails", "entailed"), "entailment"),
    **dict.fromkeys(("contradict", "contradicts", "contradictory"), "contradiction"),
    **dict.fromkeys(("non_entailment", "no_entailment", "not_entail", "not_entailed"), "not_entailment"),
}
_PROBE = "A naïve Café, isn't it? No. 42!"  # case, accents, punctuation, digits: what tokenizers treat differently


def check_teacher(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Refuses a teacher that can't teach this student.

    Args:
        student: the model that will be trained.
        teacher: the model that it will be trained on; nothing of it is changed.

    Raises:
        TeacherError: the teacher has another number of outputs or a smaller vocabulary, shares weights with the
            student, classifies several labels at once, or has a classification head that no checkpoint ever held.
    """
    name = type(teacher).__name__
    if teacher.config.num_labels != student.config.num_labels:
        raise TeacherError(
            f"Expected a teacher with the student's {student.config.num_labels} outputs, got {name} with "
            f"{teacher.config.num_labels}. Take a teacher fine-tuned for this task, or build the student from it."
        )
    for model in (student, teacher):
        if model.config.problem_type == "multi_label_classification":
            raise TeacherError(
                f"Expected one label or one number for each row, got {type(model).__name__} with problem_type "
                "'multi_label_classification', for which a softmax over the classes has no meaning."
            )
    if student.config.vocab_size > teacher.config.vocab_size:
        raise TeacherError(
            f"Expected a teacher that knows the student's {student.config.vocab_size} tokens, got {name} "
            f"with {teacher.config.vocab_size}. Take teacher and student with the same tokenizer."
        )
    students_own = {id(parameter) for parameter in student.parameters()}
    if any(id(parameter) in students_own for parameter in teacher.parameters()):
        raise TeacherError(
            "Expected a teacher and a student with weights of their own, got two that share some: the teacher "
            "would be trained, or the student frozen. Build the student with build_student(teacher)."
        )
    if _head_is_untrained(teacher):
        raise TeacherError(
            f"Expected a fine-tuned teacher, got {name} from a checkpoint of "
            f"{', '.join(teacher.config.architectures or ())}: its classification head is random and has nothing to "
            "teach. Fine-tune it on the task first (in a recipe: teacher.finetune)."
        )


def _head_is_untrained(model: PreTrainedModel) -> bool:
    """A checkpoint of another class gave no head, and the bias of the output layer is exactly as initialised: zero."""
    architectures = model.config.architectures
    if not architectures or type(model).__name__ in architectures:
        return False
    layer = output_layer(model)
    return layer is not None and layer.bias is not None and not layer.bias.detach().any()


def output_layer(model: PreTrainedModel) -> nn.Linear | None:
    """The layer that gives the logits: the last linear one with as many outputs as there are labels."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == model.config.num_labels]
    return layers[-1] if layers else None


def output_order(wanted: Sequence[str], given: Sequence[str]) -> list[int] | None:
    """Which of the teacher's outputs stands for each label, matched by name.

    Case, spaces, hyphens and underscores don't count, and a number is the label that has no other name: 1 is LABEL_1.
    Other forms of the words of natural language inference count as GLUE's: "entails" is "entailment".

    Args:
        wanted: the labels, in the order of the data and the student.
        given: the names of the teacher's outputs, in their order.

    Returns:
        The order to take the teacher's outputs in, or None when it is the student's already.

    Raises:
        TeacherError: the names can't be matched one to one.
    """
    keys, given_keys = [_key(name) for name in wanted], [_key(name) for name in given]
    if keys == given_keys:
        return None
    if sorted(keys) == sorted(given_keys) and len(set(keys)) == len(keys):
        return [given_keys.index(key) for key in keys]
    is_unnamed = len(keys) == len(given_keys) and all(_UNNAMED_LABEL.fullmatch(key) for key in given_keys)
    hint = "Nobody named the teacher's outputs. " if is_unnamed else ""
    raise TeacherError(
        f"Expected a teacher with the labels {list(wanted)}, got {list(given)}. {hint}Say what the teacher's outputs "
        "are, in their order, with the names of the data: teacher_labels=[...] (in a recipe: teacher.labels)."
    )


def label_names(config: PretrainedConfig) -> list[str]:
    """The names of a classifier's outputs, in their order."""
    names: dict[Any, str] = dict(config.id2label or {})
    return [str(name) for _, name in sorted(names.items())]


def _key(name: str) -> str:
    key = re.sub(r"[\s_-]+", "_", str(name).strip().casefold())
    return f"label_{int(key)}" if key.isdecimal() else _SAME_NAMES.get(key, key)


def check_same_tokenizer(
    student_tokenizer: PreTrainedTokenizerBase, teacher_tokenizer: PreTrainedTokenizerBase
) -> None:
    """Refuses tokenizers that would give the two models different ids for one text.

    What is compared is what decides the ids: the vocabulary, and of fast tokenizers the normaliser, pre-tokeniser,
    template and the rest of the model (merges, unknown token). Of a tokenizer written in Python those can't be read,
    so a text is tried. Class names don't matter: BERT's and DistilBERT's tokenizers are the same.

    Args:
        student_tokenizer: reads the rows.
        teacher_tokenizer: read the rows that the teacher was trained on.

    Raises:
        TeacherError: they differ; the message says in what.
    """
    difference = _vocabulary_difference(student_tokenizer.get_vocab(), teacher_tokenizer.get_vocab())
    if difference is None:
        mine, theirs = _backend(student_tokenizer), _backend(teacher_tokenizer)
        if mine is None or theirs is None:
            difference = _probe_difference(student_tokenizer, teacher_tokenizer)
        else:
            difference = _backend_difference(mine, theirs)
    if difference is not None:
        raise TeacherError(
            f"Expected teacher and student to read a text as the same tokens, but {difference}. "
            "Build the student from this teacher, or take a teacher with the student's tokenizer."
        )


def tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """All that decides the ids of a text, for the keys of caches.

    Padding and truncation are set at each call and left out. Of a tokenizer written in Python, whose options can't be
    read from a backend, all that it was made with counts, except where its files lay.

    Args:
        tokenizer: fast, or written in Python.

    Returns:
        Values that JSON can hold, or that `str` tells apart.
    """
    identity: dict[str, Any] = {"special": tokenizer.special_tokens_map}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        parts = json.loads(backend.to_str())
        return identity | {name: part for name, part in parts.items() if name not in ("padding", "truncation")}
    options = {
        name: str(value)
        for name, value in tokenizer.init_kwargs.items()
        if not name.endswith("_file") and name not in ("name_or_path", "tokenizer_class")
    }
    return identity | {"vocabulary": tokenizer.get_vocab(), "class": str(type(tokenizer)), "options": options}


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256, in hexadecimal, of all that decides the ids of a text, see `tokenizer_identity`."""
    return hashlib.sha256(json.dumps(tokenizer_identity(tokenizer), sort_keys=True, default=str).encode()).hexdigest()


def _vocabulary_difference(mine: dict[str, int], theirs: dict[str, int]) -> str | None:
    if mine == theirs:
        return None
    moved = sorted(token for token in mine if theirs.get(token) != mine[token])
    if not moved:
        return f"the teacher's vocabulary has {len(theirs) - len(mine)} tokens more"
    token = moved[0]
    return (
        f"{len(moved)} of the student's {len(mine)} tokens are not the teacher's (for example {token!r}: "
        f"{mine[token]} and {theirs.get(token, 'none')})"
    )


def _backend(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any] | None:
    """What a fast tokenizer does to a text, as JSON; None for one that is written in Python."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    parts = json.loads(backend.to_str())
    if isinstance(parts["model"].get("vocab"), dict):
        del parts["model"]["vocab"]  # compared before; a list has scores beside the tokens
    return {part: parts[part] for part in ("normalizer", "pre_tokenizer", "post_processor", "model")}


def _backend_difference(mine: dict[str, Any], theirs: dict[str, Any]) -> str | None:
    for part in mine:
        if mine[part] != theirs[part]:
            return f"their {part} differs ({_differing(mine[part], theirs[part])})"
    return None


def _differing(mine: Any, theirs: Any) -> str:
    if isinstance(mine, dict) and isinstance(theirs, dict):
        keys = [key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)]
        return ", ".join(f"{key}: {_short(mine.get(key))} and {_short(theirs.get(key))}" for key in sorted(keys))
    return f"{_short(mine)} and {_short(theirs)}"


def _probe_difference(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> str | None:
    mine, theirs = student(_PROBE)["input_ids"], teacher(_PROBE)["input_ids"]
    return None if mine == theirs else f"{_PROBE!r} is {mine} to the student and {theirs} to the teacher"


def _short(value: object, limit: int = 80) -> str:
    text = json.dumps(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
