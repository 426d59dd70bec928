"""Tiny language models, sentences and trainings, shared by the tests of pretraining."""

from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel, PrinterCallback, TrainingArguments

from distilbert_kd.pretraining.trainer import PretrainingTrainer
from distilbert_kd.student.build import build_student
from tests.tiny import VOCABULARY, tiny_bert, tiny_tokenizer
from tests.tiny_runs import review_rows
from tests.training_rows import flat_weights


def tiny_masked_lm(seed: int = 0, **config: Any) -> BertForMaskedLM:
    """A random masked language model for `tiny_tokenizer`: 4 layers, 32 wide, without dropout unless asked for."""
    fields = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        **config,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BertForMaskedLM(BertConfig(**fields)).eval()


def tiny_encoder(**config: Any) -> BertModel:
    """An encoder without a head, and with a pooler."""
    return tiny_bert(4, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **config).bert


def sentences(num_rows: int = 32) -> datasets.Dataset:
    """Tokenised reviews of different lengths."""
    texts = [row["text"] for row in review_rows(num_rows)]
    return datasets.Dataset.from_dict({"input_ids": tiny_tokenizer()(texts)["input_ids"]})


def distil_language(folder: Path, batch_size: int, accumulation: int) -> dict[str, Any]:
    """Distils a masked language model of twice the width, in float64; gives weights and log lines."""
    trainer = new_trainer(
        folder,
        tiny_masked_lm(seed=5, hidden_size=64),
        sentences(33),
        torch.float64,
        student=tiny_masked_lm(seed=1, num_hidden_layers=2),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=2,
        logging_strategy="steps",
        logging_steps=1,
        terms={"hidden_mse": 1.0, "hidden_cosine": 1.0, "value_relation": 0.5},
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    return {"weights": flat_weights(trainer.model), "history": lines}


def new_trainer(folder: Path, teacher: Any, rows: datasets.Dataset, dtype: Any = None, **settings: Any) -> Any:
    """A training of a 2-layer student, if none is given; `settings` are split between arguments and trainer."""
    student = settings.pop("student", None) or build_student(teacher, 2)
    own = {"soft_targets", "masked_language_model", "temperature", "masking_probability", "terms"}
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=3,
        **{
            "save_strategy": "no",
            "logging_strategy": "no",
            "train_sampling_strategy": "random",
            **{name: value for name, value in settings.items() if name not in own},
        },
    )
    torch.manual_seed(3)
    return PretrainingTrainer(
        model=student.to(dtype or torch.float32),
        args=arguments,
        rows=rows,
        tokenizer=tiny_tokenizer(),
        teacher=teacher.to(dtype or torch.float32),
        **{name: value for name, value in settings.items() if name in own},
    )
