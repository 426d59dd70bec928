"""Tokenising: which inputs come out, what is cut, and which lengths are refused."""

import datasets
import pytest

from distilbert_kd.data.tokenizing import tokenize
from distilbert_kd.errors import DataError
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


PAIRS = {"text": ["good film", "", "a bad film that is slow"], "text_pair": ["bad film", "good", "a slow film"]}


def test_inputs_and_labels(tokenizer):
    """Prevents a teacher without its segment ids, padding that no collator undoes, and labels that change."""
    dataset = datasets.Dataset.from_dict({**PAIRS, "label": [1, -100, 0], "index": [7, 8, 9]})
    names = ["input_ids", "attention_mask", "token_type_ids", "labels"]
    rows = tokenize(dataset, tokenizer, 32, names)
    assert sorted(rows.dataset.column_names) == sorted(names)
    assert rows.num_truncated == 0
    assert rows.dataset["labels"][:] == [1, -100, 0]
    assert rows.dataset["token_type_ids"][0] == [0, 0, 0, 0, 1, 1, 1]
    assert [len(ids) for ids in rows.dataset["input_ids"]] == [7, 4, 12]
    assert tokenizer.decode(rows.dataset["input_ids"][0]) == "[CLS] good film [SEP] bad film [SEP]"


def test_segment_ids_though_the_tokenizer_leaves_them_out(tokenizer, monkeypatch):
    """Prevents a DistilBERT student's tokenizer from starving a BERT teacher of token_type_ids."""
    monkeypatch.setattr(tokenizer, "model_input_names", ["input_ids", "attention_mask"])
    dataset = datasets.Dataset.from_dict(PAIRS)
    with_segments = tokenize(dataset, tokenizer, 32, ["input_ids", "token_type_ids", "attention_mask"])
    assert with_segments.dataset["token_type_ids"][1] == [0, 0, 1, 1]
    without = tokenize(dataset, tokenizer, 32, ["input_ids", "attention_mask", "position_ids"])
    assert sorted(without.dataset.column_names) == ["attention_mask", "input_ids"]


@pytest.mark.parametrize("has_pair", [True, False])
def test_cut_rows_are_counted(tokenizer, has_pair):
    """Prevents texts that lose their end without a word, and a count that calls a text of just that length cut."""
    columns = PAIRS if has_pair else {"text": PAIRS["text"]}
    rows = tokenize(datasets.Dataset.from_dict(columns), tokenizer, 7, ["input_ids"])
    assert rows.num_truncated == 1
    assert [len(ids) for ids in rows.dataset["input_ids"]] == ([7, 4, 7] if has_pair else [4, 2, 7])
    assert tokenize(datasets.Dataset.from_dict(columns), tokenizer, 12, ["input_ids"]).num_truncated == 0


def test_same_result_without_the_fast_tokenizers_word(tokenizer, monkeypatch):
    """Prevents another count from a tokenizer that is written in Python."""
    from transformers import BatchEncoding

    monkeypatch.setattr(BatchEncoding, "encodings", None)
    assert tokenize(datasets.Dataset.from_dict(PAIRS), tokenizer, 7, ["input_ids"]).num_truncated == 1


def test_lengths_that_do_not_fit(tokenizer, monkeypatch):
    """Prevents an index error in the position embeddings, and rows of nothing but special tokens."""
    dataset = datasets.Dataset.from_dict(PAIRS)
    with pytest.raises(DataError, match="at most 32 tokens, the limit of the model; got 33"):
        tokenize(dataset, tokenizer, 33, ["input_ids"], max_model_length=32)
    monkeypatch.setattr(tokenizer, "model_max_length", 48)
    with pytest.raises(DataError, match="at most 48 tokens, the limit of the tokenizer; got 64"):
        tokenize(dataset, tokenizer, 64, ["input_ids"])
    with pytest.raises(DataError, match="more than the 3 special tokens of each row; got 3"):
        tokenize(dataset, tokenizer, 3, ["input_ids"])
