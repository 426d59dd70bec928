"""The rows of a task as both models read them."""

import copy
import inspect
from dataclasses import dataclass

import datasets
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from distilbert_kd.data.task_data import TaskData
from distilbert_kd.data.tokenizing import TokenizedRows, tokenize


__all__ = ["Reader", "TaskRows", "max_length_of", "tokenize_rows", "tokenize_task", "tokenizer_for"]


@dataclass(frozen=True)
class TaskRows:
    """Tokenised splits.

    Attributes:
        train: Rows to train on.
        evaluation: Labelled splits, the main one first.
        num_truncated: Rows of all splits that were longer than the largest length.
        num_truncated_train: Those of them that are trained on.
    """

    train: datasets.Dataset
    evaluation: dict[str, datasets.Dataset]
    num_truncated: int
    num_truncated_train: int = 0

    def with_train(self, train: TokenizedRows) -> "TaskRows":
        """The same splits, with other rows to train on."""
        num_truncated = self.num_truncated - self.num_truncated_train + train.num_truncated
        return TaskRows(train.dataset, self.evaluation, num_truncated, train.num_truncated)

    @property
    def main_split(self) -> str:
        """The split that decides: the first one that is scored."""
        return next(iter(self.evaluation))

    def notes(self, max_length: int) -> list[str]:
        """What a reader of the results must know about the tokens."""
        return [f"{self.num_truncated} texts were cut to {max_length} tokens"] if self.num_truncated else []


@dataclass(frozen=True)
class Reader:
    """A model, the tokenizer that belongs to it, and the task's rows as it reads them.

    Teacher and student are two readers of one task; they read alike unless the student starts from another model. Rows
    may hold more than a model takes (token types, for a DistilBERT cut from a BERT): each is given its own.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    rows: TaskRows


def tokenize_rows(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, *models: PreTrainedModel
) -> TokenizedRows:
    """Tokenises one split for models that share a tokenizer, and for every student of them.

    Args:
        rows: with `text`, maybe `text_pair` and `label`.
        tokenizer: of the models.
        max_length: largest number of tokens, special ones included.
        *models: decide together which inputs are made, and how many tokens have a position.

    Returns:
        The rows in their order, and how many of them were cut.

    Raises:
        DataError: `max_length` is more than a model has positions for.
    """
    inputs = [name for model in models for name in inspect.signature(model.forward).parameters]
    limits = [limit for limit in (max_length_of(model.config) for model in models) if limit is not None]
    return tokenize(rows, tokenizer, max_length, inputs, min(limits, default=None))


def max_length_of(config: PretrainedConfig) -> int | None:
    """How many tokens have a position; RoBERTa and MPNet count theirs from after the padding token's number."""
    num_positions = getattr(config, "max_position_embeddings", None)
    if num_positions is None or config.model_type not in ("roberta", "mpnet"):
        return num_positions
    padding = config.pad_token_id if config.model_type == "roberta" else 1  # MPNet's is fixed in its code
    return num_positions - (padding or 0) - 1


def tokenize_task(
    data: TaskData, tokenizer: PreTrainedTokenizerBase, max_length: int, *models: PreTrainedModel
) -> TaskRows:
    """Tokenises all splits that are trained on or scored.

    Args:
        data: the task.
        tokenizer: of the models.
        max_length: largest number of tokens, special ones included.
        *models: decide together which inputs are made, and how many tokens have a position.

    Returns:
        The splits, tokenised.

    Raises:
        DataError: `max_length` is more than a model has positions for.
    """
    train = tokenize_rows(data.train, tokenizer, max_length, *models)
    evaluation = {name: tokenize_rows(rows, tokenizer, max_length, *models) for name, rows in data.evaluation.items()}
    num_truncated = train.num_truncated + sum(split.num_truncated for split in evaluation.values())
    splits = {name: split.dataset for name, split in evaluation.items()}
    return TaskRows(train.dataset, splits, num_truncated, train.num_truncated)


def tokenizer_for(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer to be saved with a model: it gives what the model takes, when nobody asks for anything.

    Args:
        model: a student.
        tokenizer: of the model that the student was cut from; it is left as it is.

    Returns:
        The tokenizer itself, or a copy that gives no `token_type_ids` to a model that doesn't take them.
    """
    names = inspect.signature(model.forward).parameters
    if "token_type_ids" in names or "token_type_ids" not in tokenizer.model_input_names:
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # what is saved, for BERT's own class
    return tokenizer
