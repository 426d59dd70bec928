"""The splits of a task, tokenised for a model."""

import datasets
import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from distilbert_kd.data.task_data import TaskData
from distilbert_kd.errors import DataError
from distilbert_kd.student.build import build_student
from distilbert_kd.task_rows import tokenize_rows, tokenize_task, tokenizer_for
from tests.tiny import VOCABULARY, tiny_bert, tiny_tokenizer


SIZES = {"vocab_size": len(VOCABULARY), "num_attention_heads": 2, "hidden_size": 16, "num_hidden_layers": 1}


def split(*texts):
    return datasets.Dataset.from_dict({"text": list(texts), "label": [0] * len(texts)})


def task(evaluation):
    return TaskData(
        name="reviews",
        label_names=("bad", "good"),
        metric="accuracy_f1",
        train=split("a good film", "a good good good good film"),
        evaluation=evaluation,
        test={},
        source="memory",
        notes=(),
    )


def test_a_model_gets_the_columns_that_it_takes():
    """Prevents a BERT teacher without segments, and a column that a DistilBERT refuses."""
    distilbert = DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=len(VOCABULARY), dim=16, n_heads=2, n_layers=1, hidden_dim=16)
    )
    columns = {
        model: set(tokenize_rows(split("good"), tiny_tokenizer(), 16, model).dataset.column_names)
        for model in (tiny_bert(1), distilbert)
    }
    assert list(columns.values()) == [
        {"input_ids", "token_type_ids", "attention_mask", "labels"},
        {"input_ids", "attention_mask", "labels"},
    ]


def test_two_models_that_read_the_same_rows_get_what_either_takes():
    """Prevents a student without token types because its online teacher has none, and rows that are too long."""
    distilbert = DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=len(VOCABULARY), dim=16, n_heads=2, n_layers=1, hidden_dim=16)
    )
    short = tiny_bert(1, max_position_embeddings=8)
    for models in ((distilbert, short), (short, distilbert)):
        tokenizer = tokenizer_for(distilbert, tiny_tokenizer())
        assert "token_type_ids" in tokenize_rows(split("good"), tokenizer, 8, *models).dataset.column_names
        with pytest.raises(DataError, match="at most 8 tokens"):
            tokenize_rows(split("good"), tokenizer, 9, *models)


def test_all_splits_are_tokenised_and_the_cut_rows_counted():
    """Prevents a result table that says nothing of rows that the models did not see whole."""
    data = task({"validation": split("bad"), "other": split("a very very very bad film")})
    rows = tokenize_task(data, tiny_tokenizer(), 6, tiny_bert(1))
    assert list(rows.evaluation) == ["validation", "other"]
    assert rows.main_split == "validation"
    assert [len(ids) for ids in rows.train["input_ids"]] == [5, 6]
    assert rows.num_truncated == 2
    assert rows.notes(6) == ["2 texts were cut to 6 tokens"]
    assert tokenize_task(data, tiny_tokenizer(), 16, tiny_bert(1)).notes(16) == []


@pytest.mark.parametrize(
    ("model", "num_tokens"),
    [
        (tiny_bert(1, max_position_embeddings=20), 20),
        # Both count positions from 2 when the padding token is number 1: 514 positions are 512 tokens.
        (RobertaForSequenceClassification(RobertaConfig(**SIZES, max_position_embeddings=20, pad_token_id=1)), 18),
        (MPNetForSequenceClassification(MPNetConfig(**SIZES, max_position_embeddings=20)), 18),
    ],
    ids=["bert", "roberta", "mpnet"],
)
def test_the_largest_length_is_the_one_that_the_model_survives(model, num_tokens):
    """Prevents an index error at the first long row, and rows that are cut for no reason."""
    long = split("good " * 40)
    rows = tokenize_rows(long, tiny_tokenizer(), num_tokens, model).dataset
    with torch.no_grad():
        assert model(input_ids=torch.tensor(rows["input_ids"])).logits.isfinite().all()
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, num_tokens + 1), 7))
    with pytest.raises(DataError, match=f"at most {num_tokens} tokens, the limit of the model; got {num_tokens + 1}"):
        tokenize_rows(long, tiny_tokenizer(), num_tokens + 1, model)


class TestTokenizerFor:
    def test_a_distilbert_gets_one_without_token_types_in_memory_and_on_disk(self, tmp_path):
        """Prevents a saved student whose pipeline hands it an input that it doesn't know."""
        bert = BertTokenizer(
            vocab={token: i for i, token in enumerate(VOCABULARY)}
        )  # the class whose default has them
        for folder, original in (("plain", tiny_tokenizer()), ("bert", bert)):
            tokenizer = tokenizer_for(build_student(tiny_bert(), architecture="distilbert"), original)
            tokenizer.save_pretrained(tmp_path / folder)
            for one in (tokenizer, AutoTokenizer.from_pretrained(tmp_path / folder)):
                assert set(one("a film", "a plot")) == {"input_ids", "attention_mask"}
            assert "token_type_ids" in original("a film")

    def test_any_other_student_keeps_its_own(self):
        """Prevents copies, and a BERT that is no longer given token types."""
        tokenizer = tiny_tokenizer()
        assert tokenizer_for(tiny_bert(), tokenizer) is tokenizer
