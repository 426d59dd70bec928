"""The part of a model card that machines read: figures of `results.json`, and nothing that the run does not know.

`base_model` is what the student's weights were started from, which the Hub takes only as one of its own ids; the
teacher, of which the Hub makes no relation, stands under the free key `teacher_model`.
Source: https://huggingface.co/docs/hub/model-cards
"""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from distilbert_kd.hub.facts import RunFacts, is_hub_id
from distilbert_kd.result_facts import splits_of


__all__ = ["card_metadata", "dataset_id", "metric_name"]

#: Names in `results.json` to those of https://huggingface.co/metrics.
_METRIC_IDS = {
    "accuracy": "accuracy",
    "f1": "f1",
    "matthews_correlation": "matthews_correlation",
    "pearson": "pearsonr",
    "spearmanr": "spearmanr",
}
_METRIC_NAMES = {
    "accuracy": "Accuracy",
    "f1": "F1",
    "matthews_correlation": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearmanr": "Spearman correlation",
}
_PIPELINE = "text-classification"
_GLUE = "nyu-mll/glue"


def card_metadata(
    facts: RunFacts, name: str, license: str | None = None, language: str | None = None
) -> ModelCardData:
    """The metadata of a student's card.

    Args:
        facts: of the run; before it has run, all but the figures is there.
        name: of the model.
        license: of the student, if its owner says.
        language: of the texts; English for GLUE tasks.

    Returns:
        The metadata; keys that nothing is known of are left out.
    """
    task = facts.recipe["data"].get("task")
    dataset = dataset_id(facts.recipe)
    results = _eval_results(facts, dataset)
    free: dict[str, Any] = {"teacher_model": facts.teacher_id} if facts.teacher_id else {}
    if facts.base_id:
        free |= {"base_model_relation": "finetune"}
    return ModelCardData(
        language=language or ("en" if task else None),
        license=license,
        library_name="transformers",
        pipeline_tag=_PIPELINE,
        base_model=facts.base_id,
        datasets=[dataset] if dataset else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        tags=_tags(facts),
        model_name=name if results else None,
        eval_results=results or None,
        **free,
    )


def dataset_id(recipe: Mapping[str, Any]) -> str | None:
    """The data set's id on the Hub; None for rows of one's own."""
    data = recipe["data"]
    if data.get("task"):
        return _GLUE
    return data["dataset"] if is_hub_id(data.get("dataset")) else None


def _tags(facts: RunFacts) -> list[str]:
    task = facts.recipe["data"].get("task")
    return ["knowledge-distillation", *filter(None, [facts.config.get("model_type"), task])]


def _eval_results(facts: RunFacts, dataset: str | None) -> list[EvalResult]:
    if not facts.results:
        return []
    data, metric = facts.recipe["data"], facts.results["metric"]
    task = data.get("task")
    source = {
        "dataset_type": dataset or "custom",
        "dataset_name": f"GLUE {task.upper()}" if task else dataset or facts.results["task"],
        "dataset_config": task or data.get("dataset_config"),
        "dataset_revision": data.get("revision"),
    }
    return [
        EvalResult(
            task_type=_PIPELINE,
            task_name="Text Classification",
            **source,
            dataset_split=split,
            metric_type=_METRIC_IDS.get(key, key),
            metric_name=metric_name(key, metric),
            metric_value=value,
        )
        for split in splits_of(facts.results)
        for key, value in facts.results["models"]["student"]["splits"][split]["metrics"].items()
    ]


def metric_name(key: str, metric: str) -> str:
    """A metric of `results.json` in words; F1 of two or more classes of one's own is the mean over them."""
    name = _METRIC_NAMES.get(key, key)
    return f"macro {name}" if key == "f1" and metric == "accuracy_f1" else name
