"""Texts to token ids, once for both models."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import datasets
from transformers import BatchEncoding, PreTrainedTokenizerBase

from distilbert_kd.data.task_data import IS_AUGMENTED
from distilbert_kd.errors import DataError


__all__ = ["TokenizedRows", "tokenize"]


@dataclass(frozen=True)
class TokenizedRows:
    """A tokenised data set, and how many of its rows were cut to the largest length."""

    dataset: datasets.Dataset
    num_truncated: int


def tokenize(
    dataset: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    model_input_names: Iterable[str],
    max_model_length: int | None = None,
) -> TokenizedRows:
    """Tokenises `text` (and `text_pair`) without padding; rows longer than `max_length` tokens are cut and counted.

    The inputs are asked for by name, so a BERT teacher gets `token_type_ids` from the tokenizer of a DistilBERT too.

    Args:
        dataset: Rows with `text`, maybe `text_pair`, `label` and `is_augmented`.
        tokenizer: The tokenizer that both models share.
        max_length: Largest number of tokens, special ones included.
        model_input_names: What the models take; names that no tokenizer gives, such as `labels`, do no harm.
        max_model_length: Largest number of tokens that the models have positions for, if known.

    Returns:
        The rows in the same order with the model inputs and, if there was a `label`, `labels` (-100 stays); also with
        `is_augmented` if there was one.

    Raises:
        DataError: `max_length` is above what the tokenizer or the model takes, or leaves no room for text.
    """
    has_pair = "text_pair" in dataset.column_names
    _check_max_length(tokenizer, max_length, max_model_length, has_pair)
    wanted = [name for name in dict.fromkeys(model_input_names) if name not in ("label", "labels")]
    truncated: list[int] = []

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        texts = (batch["text"], batch["text_pair"]) if has_pair else (batch["text"],)
        encoded = tokenizer(
            *texts,
            truncation=True,
            max_length=max_length,
            padding=False,
            return_token_type_ids="token_type_ids" in wanted,
            return_attention_mask="attention_mask" in wanted,
        )
        truncated.append(_num_truncated(tokenizer, encoded, texts))
        return {name: encoded[name] for name in wanted if name in encoded}

    targets = ("label", IS_AUGMENTED)
    kept = dataset.select_columns([name for name in ("text", "text_pair", *targets) if name in dataset.column_names])
    rows = kept.map(
        encode,
        batched=True,
        remove_columns=[name for name in kept.column_names if name not in targets],
        keep_in_memory=True,
        # The count of truncated rows is made on the way, so no row may come from a cache.
        load_from_cache_file=False,
        desc="Tokenising",
    )
    if "label" in rows.column_names:
        rows = rows.rename_column("label", "labels")
    return TokenizedRows(rows, sum(truncated))


def _check_max_length(
    tokenizer: PreTrainedTokenizerBase, max_length: int, max_model_length: int | None, has_pair: bool
) -> None:
    limits = {"tokenizer": tokenizer.model_max_length, "model": max_model_length}
    for owner, limit in limits.items():
        # A tokenizer that knows no limit gives a number far above any length.
        if limit is not None and max_length > limit:
            raise DataError(
                f"data.max_length: expected at most {limit} tokens, the limit of the {owner}; got {max_length}. "
                f"Set data.max_length to {limit} or less."
            )
    num_special = tokenizer.num_special_tokens_to_add(pair=has_pair)
    if max_length <= num_special:
        raise DataError(
            f"data.max_length: expected more than the {num_special} special tokens of each row; got {max_length}. "
            "Set data.max_length to a larger number."
        )


def _num_truncated(tokenizer: PreTrainedTokenizerBase, encoded: BatchEncoding, texts: tuple[list[str], ...]) -> int:
    if encoded.encodings is not None:
        return sum(bool(encoding.overflowing) for encoding in encoded.encodings)
    # A tokenizer written in Python does not say what it cut.
    whole = tokenizer(*texts, truncation=False, padding=False, verbose=False)
    return sum(len(ids) > len(cut_ids) for ids, cut_ids in zip(whole["input_ids"], encoded["input_ids"], strict=True))
