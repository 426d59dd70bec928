"""The builders that other tests trust."""

import torch

from tests.tiny import VOCABULARY, tiny_bert, tiny_tokenizer


def test_tokenizer_marks_both_texts_and_knows_its_words(tmp_path):
    """A tokenizer that maps everything to [UNK], or has no segments, would make every test on inputs pass idly."""
    tokenizer = tiny_tokenizer(tmp_path)
    encoded = tokenizer("A good film", "Zebra?")
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"]) == [
        *("[CLS]", "a", "good", "film", "[SEP]"),
        *("z", "##e", "##b", "##r", "##a", "?", "[SEP]"),
    ]
    assert encoded["token_type_ids"] == [0] * 5 + [1] * 7
    assert len(tokenizer) == len(VOCABULARY) == len(set(VOCABULARY))


def test_saved_tokenizer_loads_as_the_same(tmp_path):
    """A run folder test needs a tokenizer that survives AutoTokenizer."""
    from transformers import AutoTokenizer

    tokenizer = tiny_tokenizer(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert dict(loaded("so bad", "fun")) == dict(tokenizer("so bad", "fun"))


def test_model_depends_on_its_seed_alone():
    """Weights that depended on the test order would make failures impossible to repeat."""
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = tiny_bert(num_layers=2, seed=3)
    assert torch.equal(torch.rand(1), expected)
    again, other = tiny_bert(num_layers=2, seed=3), tiny_bert(num_layers=2, seed=4)
    batch = tiny_tokenizer()(["good film", "bad film"], return_tensors="pt")
    with torch.no_grad():
        logits = [model(**batch).logits for model in (first, again, other)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])
    assert not torch.allclose(logits[0][0], logits[0][1])
