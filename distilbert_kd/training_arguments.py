"""Names, types and choices of `transformers.TrainingArguments`, read from its source without importing torch.

Importing the class costs seconds and torch. Its module is found and parsed instead, so that a recipe is checked at
once against the version of transformers that is installed.
"""

import ast
import difflib
import importlib.util
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from distilbert_kd.errors import RecipeError


__all__ = ["TrainingArgument", "check_training_arguments", "known_training_arguments", "shown"]

# What the run decides itself. A value below a section would be overwritten or ignored without a word.
_OWNED = {
    "output_dir": "set output_dir at the top level of the recipe",
    "seed": "set seed at the top level of the recipe",
    "data_seed": "set seed at the top level of the recipe; student and control see the same order of rows",
    "hub_token": "a token never stands in a recipe: set HF_TOKEN, or log in with `hf auth login`",
    "resume_from_checkpoint": "leave it out: started again, a run that was cut off goes on by itself",
    "do_train": "nothing reads it; `distilbert-kd run` trains",
    "do_eval": "nothing reads it; set eval_strategy",
    "do_predict": "nothing reads it; use `distilbert-kd predict`",
    "local_rank": "the launcher sets it (accelerate launch, torchrun)",
}

# Names that older versions of transformers knew, each with what to write today.
_REMOVED = {
    "adafactor": "write optim: adafactor",
    "dispatch_batches": "write accelerator_config: {dispatch_batches: ...}",
    "evaluation_strategy": "write eval_strategy",
    "fp16_backend": "write fp16: true or bf16: true alone",
    "fp16_opt_level": "write fp16: true or bf16: true alone",
    "fsdp_min_num_params": "write fsdp_config: {min_num_params: ...}",
    "fsdp_transformer_layer_cls_to_wrap": "write fsdp_config: {transformer_layer_cls_to_wrap: ...}",
    "group_by_length": "write train_sampling_strategy: group_by_length",
    "half_precision_backend": "write fp16: true or bf16: true alone",
    "include_inputs_for_metrics": "write include_for_metrics: [inputs]",
    "include_tokens_per_second": "write include_num_input_tokens_seen: true",
    "jit_mode_eval": "write torch_compile: true, or leave it out",
    "logging_dir": "set the environment variable TENSORBOARD_LOGGING_DIR",
    "mp_parameters": "leave it out",
    "no_cuda": "write use_cpu: true",
    "overwrite_output_dir": "leave it out: a run starts in an empty folder and overwrites nothing",
    "past_index": "leave it out",
    "per_gpu_eval_batch_size": "write per_device_eval_batch_size",
    "per_gpu_train_batch_size": "write per_device_train_batch_size",
    "push_to_hub_model_id": "write hub_model_id",
    "push_to_hub_organization": "write hub_model_id: organisation/name",
    "push_to_hub_token": _OWNED["hub_token"],
    "ray_scope": "leave it out",
    "save_safetensors": "leave it out: weights are always saved as safetensors",
    "sharded_ddp": "write fsdp",
    "split_batches": "write accelerator_config: {split_batches: ...}",
    "torchdynamo": "write torch_compile_backend",
    "tpu_metrics_debug": "write debug: tpu_metrics_debug",
    "use_ipex": "leave it out",
    "use_mps_device": "leave it out: the device is found without it",
    "warmup_ratio": "write warmup_steps with the same number: below 1 it is a share of all steps",
    "xpu_backend": "write ddp_backend",
}

# The annotation says text, the documentation says true or false; upstream plans to change the annotation.
_UNCHECKED = frozenset({"fsdp"})

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "Literal[False]": "false",
    "str": "text",
    "dict": "a section of keys",
    "list": "a list of texts",
    "None": "null",
}


@dataclass(frozen=True)
class TrainingArgument:
    """One field of `TrainingArguments`: its name, its annotation as text, and the texts it allows (empty: any)."""

    name: str
    annotation: str
    choices: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The members of the annotation's union: int, float, bool, str, dict, list, None, or another name."""
        members = [member.strip() for member in self.annotation.split("|")]
        return tuple(member.split("[")[0] if member.startswith(("dict[", "list[")) else member for member in members)


@lru_cache(maxsize=1)
def known_training_arguments() -> Mapping[str, TrainingArgument]:
    """Read the fields of the installed `transformers.TrainingArguments`.

    Returns:
        Name -> field, in the order of the class.

    Raises:
        RecipeError: transformers is not installed, or its source is not where it is expected.
    """
    spec = importlib.util.find_spec("transformers")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    if folder is None or not (folder / "training_args.py").is_file():
        raise RecipeError(
            "Expected the package transformers with training_args.py, got none. "
            "Install it: pip install 'transformers>=5.19,<6'."
        )
    tree = ast.parse((folder / "training_args.py").read_text(encoding="utf-8"))
    trainer_tree = ast.parse((folder / "trainer_utils.py").read_text(encoding="utf-8"))
    enums = dict([*_enums(trainer_tree), *_enums(tree)])
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments")
    known = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            annotation = ast.unparse(node.annotation)
            members = {member.strip() for member in annotation.split("|")}
            choices = next((enums[member] for member in members if member in enums), _metadata_choices(node.value))
            known[node.target.id] = TrainingArgument(node.target.id, annotation, choices)
    return known


def check_training_arguments(values: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """Check a section of training arguments as far as their annotations tell.

    Args:
        values: the section, name -> value.
        where: the section's path in the recipe, for the messages: "training" or "teacher.finetune".

    Returns:
        The values, numbers that came as text turned into numbers and all else untouched; and the problems, one line
        each.
    """
    checked: dict[str, Any] = {}
    problems = []
    known = known_training_arguments()
    for name, value in values.items():
        path = f"{where}.{name}"
        # a secret must not reach the terminal or a log
        got = "(not shown)" if name.endswith("_token") else shown(value)
        if name not in known:
            problems.append(f"{path}: {got}: {_unknown(name, where)}")
        elif name in _OWNED:
            problems.append(f"{path}: {got}: not allowed here; {_OWNED[name]}")
        elif refused := _refused(name, value):
            problems.append(f"{path}: {got}: {refused}")
        else:
            checked[name], expected = _coerce(value, known[name])
            if not expected and name == "num_train_epochs" and not checked[name] > 0:
                expected = "a number above 0 (for a number of steps set max_steps)"
            if expected:
                problems.append(f"{path}: expected {expected}, got {got}")
    return checked, problems


def shown(value: Any) -> str:
    """Write a value in a message as a recipe would have it, shortened to one line."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _enums(tree: ast.Module) -> Iterator[tuple[str, tuple[str, ...]]]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "ExplicitEnum" for base in node.bases):
            values = [statement.value for statement in node.body if isinstance(statement, ast.Assign)]
            yield node.name, tuple(value.value for value in values if isinstance(value, ast.Constant))  # type: ignore[misc]


def _metadata_choices(default: ast.expr | None) -> tuple[str, ...]:
    for keyword in default.keywords if isinstance(default, ast.Call) else ():
        if keyword.arg == "metadata" and isinstance(keyword.value, ast.Dict):
            for key, value in zip(keyword.value.keys, keyword.value.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "choices" and isinstance(value, ast.List):
                    return tuple(str(ast.literal_eval(item)) for item in value.elts)
    return ()


def _unknown(name: str, where: str) -> str:
    if name in _REMOVED:
        return f"transformers 5 has no such argument; {_REMOVED[name]}"
    nearest = difflib.get_close_matches(name, [key for key in known_training_arguments() if key not in _OWNED], n=1)
    hint = f"; did you mean {where}.{nearest[0]}?" if nearest else ""
    return f"not an argument of transformers.TrainingArguments{hint}"


def _refused(name: str, value: Any) -> str | None:
    if name == "label_smoothing_factor" and value not in (0, None):
        return "not allowed: the trainer's losses don't use it, it would be ignored; leave it out"
    if name == "average_tokens_across_devices" and value is False:
        return "not allowed: the loss is a mean over the rows of all processes; leave it out"
    return None


def _coerce(value: Any, argument: TrainingArgument) -> tuple[Any, str | None]:
    """Return the value and what was expected instead of it, None when it fits."""
    kinds = argument.kinds
    is_choice = bool(argument.choices) and "str" in kinds
    if argument.choices:
        kinds = tuple(kind for kind in kinds if kind in _WORDS)
    if argument.name in _UNCHECKED or any(kind not in _WORDS for kind in kinds):
        return value, None
    if is_choice and value is False and "no" in argument.choices:
        return "no", None
    if isinstance(value, str) and "str" not in kinds and {"int", "float"} & set(kinds):
        value = _number(value)
    if "int" in kinds and isinstance(value, float) and "float" not in kinds and value.is_integer():
        value = int(value)
    if is_choice and isinstance(value, str) and value not in argument.choices:
        nearest = difflib.get_close_matches(value, argument.choices, n=1)
        return value, "one of " + ", ".join(argument.choices) + (f" ({nearest[0]}?)" if nearest else "")
    if any(_is_kind(value, kind) for kind in kinds):
        return value, None
    return value, " or ".join(_WORDS[kind] for kind in kinds)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _is_kind(value: Any, kind: str) -> bool:
    match kind:
        case "None":
            return value is None
        case "bool":
            return isinstance(value, bool)
        case "Literal[False]":
            return value is False
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return _is_kind(value, "int") or (isinstance(value, float) and math.isfinite(value))
        case "str":
            return isinstance(value, str)
        case "dict":
            return isinstance(value, Mapping)
        case _:
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
