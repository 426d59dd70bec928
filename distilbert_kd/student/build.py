"""Builds a student: the teacher's architecture with some of its layers.

DistilBERT is the same network with fewer layers, not another network. So the student is an object of the teacher's own
class, its configuration differs in the number of layers only, and every weight of it is a copy of a teacher's weight.
On request a BERT's student is a stock DistilBERT, which is the same network under other names (see
`distilbert_kd.student.distilbert`).
"""

import copy
import re
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from distilbert_kd.errors import RecipeError, TeacherError
from distilbert_kd.student.distilbert import as_distilbert, check_can_be_distilbert, is_distilbert
from distilbert_kd.student.layer_maps import resolve_layers


__all__ = ["SUPPORTED_ARCHITECTURES", "build_student", "count_layers", "encoder_layers", "freeze_embeddings"]

#: Where the encoder layers of each architecture live below `model.base_model` (`config.model_type` -> path).
SUPPORTED_ARCHITECTURES = {
    "bert": "encoder.layer",
    "roberta": "encoder.layer",
    "electra": "encoder.layer",
    "distilbert": "transformer.layer",
    "mpnet": "encoder.layer",
    "deberta-v2": "encoder.layer",
    "modernbert": "layers",
}


def build_student(
    teacher: PreTrainedModel,
    num_layers: int | None = None,
    layers: str | Sequence[int] = "alternate",
    architecture: Literal["distilbert"] | None = None,
) -> PreTrainedModel:
    """A student of the teacher's own class, each layer copied from a teacher layer; or a DistilBERT of a BERT.

    Embeddings, pooler and head (a fine-tuned classifier, too) are copied as they are; `id2label`, `label2id` and every
    other setting are kept. The student shares no memory with the teacher. Its weights are float32 whatever the
    teacher's, because it will be trained.

    Args:
        teacher: a model with or without a head, of an architecture in `SUPPORTED_ARCHITECTURES`.
        num_layers: depth of the student; half the teacher's when not given.
        layers: a named map (see `distilbert_kd.student.layer_maps`) or a list of teacher layer numbers from 0.
        architecture: "distilbert" for a stock DistilBERT of the class that matches a `BertModel`, `BertForMaskedLM` or
            `BertForSequenceClassification`; a DistilBERT stays one. None for the teacher's own.

    Returns:
        The student, in train mode, on the CPU.

    Raises:
        TeacherError: the architecture can't be cut, or no DistilBERT can be made of the teacher.
        RecipeError: `num_layers` or `layers` do not fit the teacher, or `architecture` is not known.

    Source: Sanh et al. 2019, https://arxiv.org/abs/1910.01108, section 3 (student initialisation).
    """
    if architecture not in (None, "distilbert"):
        raise RecipeError(f"architecture: expected 'distilbert', or None for the teacher's own, got {architecture!r}.")
    is_converted = architecture is not None and not is_distilbert(teacher)
    if is_converted:
        check_can_be_distilbert(teacher)
    prefix = _layers_prefix(teacher)
    chosen = resolve_layers(count_layers(teacher), num_layers, layers)
    student = type(teacher)(_student_config(teacher.config, chosen))
    teacher_state = teacher.state_dict()
    position_of_layer = re.compile(re.escape(prefix) + r"\.(\d+)\.")

    def source_of(name: str) -> str:
        return position_of_layer.sub(lambda found: f"{prefix}.{chosen[int(found[1])]}.", name, count=1)

    names = {name: source_of(name) for name in student.state_dict()}
    lost = sorted(set(names.values()) - teacher_state.keys())
    spare = sorted(_names_of_chosen(teacher_state, position_of_layer, chosen) - set(names.values()))
    if lost or spare:
        raise TeacherError(
            f"{type(teacher).__name__} can't be cut to layers {chosen}: a layer's parts depend on where it stands "
            f"({', '.join((lost + spare)[:3])}). Keep teacher layer 0 as the first layer, for example "
            "layers='distilbert'."
        )
    student.load_state_dict({name: teacher_state[source] for name, source in names.items()})
    return as_distilbert(student) if is_converted else student.train()


def freeze_embeddings(student: PreTrainedModel) -> None:
    """Leaves the embeddings as they were copied: they are most of a small model's parameters, and of its optimiser.

    Args:
        student: whose embeddings are no longer trained.
    """
    student.base_model.get_submodule("embeddings").requires_grad_(False)


def count_layers(model: PreTrainedModel) -> int:
    """The number of encoder layers, read from the model itself.

    Args:
        model: a teacher or a student.

    Returns:
        N, counted in the model and not read from its configuration.

    Raises:
        TeacherError: the architecture is not in `SUPPORTED_ARCHITECTURES`.
    """
    return len(encoder_layers(model))


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The encoder layers themselves, from the first to the last.

    Args:
        model: with or without a head.

    Returns:
        The model's own list.

    Raises:
        TeacherError: the architecture is not in `SUPPORTED_ARCHITECTURES`.
    """
    layers = model.base_model.get_submodule(SUPPORTED_ARCHITECTURES[_model_type(model)])
    assert isinstance(layers, nn.ModuleList)
    return layers


def _model_type(model: PreTrainedModel) -> str:
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if model_type not in SUPPORTED_ARCHITECTURES:
        raise TeacherError(
            f"Expected an encoder of one of these architectures: {', '.join(SUPPORTED_ARCHITECTURES)}; got "
            f"{type(model).__name__} (model_type {model_type!r}), whose layers can't be cut here. "
            "Take a teacher of one of them, or bring your own student."
        )
    return model_type


def _layers_prefix(model: PreTrainedModel) -> str:
    path = SUPPORTED_ARCHITECTURES[_model_type(model)]
    return path if model.base_model is model else f"{model.base_model_prefix}.{path}"


def _student_config(config: PretrainedConfig, chosen: list[int]) -> PretrainedConfig:
    """The teacher's configuration with fewer layers; the layers' types are cut along."""
    student_config = copy.deepcopy(config)
    layer_types = getattr(config, "layer_types", None)
    if isinstance(layer_types, list):
        student_config.layer_types = [layer_types[layer] for layer in chosen]
    student_config.num_hidden_layers = len(chosen)
    student_config.dtype = torch.float32
    return student_config


def _names_of_chosen(state: dict, position_of_layer: re.Pattern, chosen: list[int]) -> set[str]:
    def is_kept(name: str) -> bool:
        found = position_of_layer.match(name)
        return found is None or int(found[1]) in chosen

    return {name for name in state if is_kept(name)}
