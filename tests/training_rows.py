"""Rows and trainers that several test modules and the two-process worker share."""

from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments

from distilbert_kd.trainer import DistillationTrainer
from tests.tiny import VOCABULARY, tiny_bert


#: All terms that models of different widths can have.
ALL_TERMS = dict.fromkeys(
    ("hidden_cosine", "hidden_mse", "first_position", "attention_mse", "attention_kl"), 0.3
) | dict.fromkeys(("query_relation", "key_relation", "value_relation"), 0.5)


def augmented_rows(num_rows: int, unlabelled: int = 0) -> datasets.Dataset:
    """The rows of `pair_rows`, two of three marked as augmented."""
    rows = pair_rows(num_rows, unlabelled=unlabelled)
    return rows.add_column("is_augmented", [number % 3 > 0 for number in range(num_rows)])


def pair_rows(num_rows: int, num_labels: int = 2, seed: int = 0, unlabelled: int = 0) -> datasets.Dataset:
    """Random pairs of texts of 6 to 14 tokens, with segments; the last `unlabelled` rows are labelled -100."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for i in range(num_rows):
        length = int(torch.randint(6, 15, (), generator=generator))
        labelled = i < num_rows - unlabelled
        label = int(torch.randint(0, num_labels, (), generator=generator)) if num_labels > 1 else i % 5 / 2
        rows.append(
            {
                "input_ids": torch.randint(5, len(VOCABULARY), (length,), generator=generator).tolist(),
                "token_type_ids": [0] * (length // 2) + [1] * (length - length // 2),
                "attention_mask": [1] * length,
                "labels": label if labelled else -100,
            }
        )
    return datasets.Dataset.from_list(rows)


def arguments(folder: Path, batch_size: int = 32, accumulation: int = 1, **settings: Any) -> TrainingArguments:
    """Two epochs on the CPU, a log line for each step, without the filter that hides NaN."""
    defaults = {
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        **{**defaults, **settings},
    )


def quiet(trainer: Trainer) -> Any:
    """The trainer, without its printing of every log line."""
    trainer.remove_callback(PrinterCallback)
    return trainer


def without_dropout(num_layers: int = 2, seed: int = 1, **config: Any) -> PreTrainedModel:
    """A tiny student whose steps depend on its rows alone."""
    return tiny_bert(num_layers, seed=seed, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **config)


def flat_weights(model: torch.nn.Module) -> torch.Tensor:
    """All weights in one vector, float64."""
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


def distil(
    folder: Path,
    rows: datasets.Dataset,
    batch_size: int,
    accumulation: int,
    terms: dict[str, Any] | None = None,
    alpha_augmented: float = 0.9,
    **settings: Any,
) -> dict[str, Any]:
    """Distils tiny BERT into half its layers; gives weights, log lines, metrics and predictions.

    With deeper terms the teacher is twice as wide, so that the student has projections.

    In float64: what differs then between two ways to split the rows is no rounding error.
    """
    trainer = quiet(
        DistillationTrainer(
            model=without_dropout().double(),
            args=arguments(folder, batch_size, accumulation, **settings),
            train_dataset=rows,
            eval_dataset=rows,
            data_collator=collator(),
            teacher=tiny_bert(4, seed=9, hidden_size=64 if terms else 32).double(),
            temperature=3.0,
            alpha=0.7,
            alpha_augmented=alpha_augmented,
            terms=terms,
        )
    )
    trainer.train()
    return {
        "weights": flat_weights(trainer.model),
        "history": [entry for entry in trainer.state.log_history if "loss" in entry],
        "eval_loss": trainer.evaluate()["eval_loss"],
        "predictions": torch.as_tensor(trainer.predict(rows).predictions),
    }


def collator() -> Any:
    """Pads as the tiny tokenizer pads."""
    from transformers import DataCollatorWithPadding

    from tests.tiny import tiny_tokenizer

    return DataCollatorWithPadding(tiny_tokenizer())
