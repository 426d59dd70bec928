"""Tiny language models, sentences and trainings, shared by the tests of pretraining."""

from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel, TrainingArguments

from distilbert_kd.pretraining.trainer import PretrainingTrainer
from distilbert_kd.student.build import build_student
from tests.tiny import VOCABULARY, tiny_bert, tiny_tokenizer
from tests.tiny_runs import review_rows


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


def new_trainer(folder: Path, teacher: Any, rows: datasets.Dataset, dtype: Any = None, **settings: Any) -> Any:
    """A training of a 2-layer student; `settings` are split between the arguments and the trainer."""
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
        model=build_student(teacher, 2).to(dtype or torch.float32),
        args=arguments,
        rows=rows,
        tokenizer=tiny_tokenizer(),
        teacher=teacher.to(dtype or torch.float32),
        **{name: value for name, value in settings.items() if name in own},
    )
