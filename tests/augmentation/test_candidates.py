"""The words that may stand for a word, against plain arithmetic on the models' own weights."""

import numpy as np
import pytest
import torch
from transformers import MobileBertConfig, MobileBertForMaskedLM

from distilbert_kd.augmentation.embedding_neighbours import EmbeddingNeighbours
from distilbert_kd.augmentation.masked_lm import MaskedLM, Place, load_masked_lm
from distilbert_kd.augmentation.whole_words import pieces_of, whole_words
from distilbert_kd.errors import TeacherError
from tests.pretraining.language_models import tiny_encoder, tiny_masked_lm
from tests.tiny import VOCABULARY, WORDS, tiny_bert, tiny_tokenizer


CPU = torch.device("cpu")
LONG_WORDS = [word for word in WORDS if len(word) > 1]


def test_whole_words_are_the_words_of_the_vocabulary():
    """Prevents `##s`, a single letter or [MASK] in an altered text."""
    assert list(whole_words(tiny_tokenizer()).values()) == LONG_WORDS
    assert all(VOCABULARY[number] == word for number, word in whole_words(tiny_tokenizer()).items())


def test_whole_words_of_a_byte_level_vocabulary():
    """Prevents parts of words from RoBERTa's kind of tokenizer, whose marks are at the start, not at the rest."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers import decoders as decoding
    from transformers import PreTrainedTokenizerFast

    entries = ["<unk>", "Ġfilm", "film", "Ġgo", "od", "Ġgood", "Ġ", "f", "i", "l", "m", "g", "o", "d"]
    merges = [("f", "i"), ("l", "m"), ("fi", "lm"), ("Ġ", "film"), ("g", "o"), ("Ġ", "go"), ("o", "d"), ("Ġgo", "od")]
    vocabulary = {entry: number for number, entry in enumerate([*entries, "fi", "lm", "go"])}
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoding.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert set(whole_words(tokenizer).values()) == {"film", "go", "good"}


class TestEmbeddingNeighbours:
    def expected(self, model, direction, without, num):
        embeddings = model.get_input_embeddings().weight.detach().double().numpy()
        rows = {word: embeddings[VOCABULARY.index(word)] for word in LONG_WORDS if word != without}
        cosine = {word: row @ direction / np.linalg.norm(row) for word, row in rows.items()}
        return sorted(cosine, key=cosine.__getitem__, reverse=True)[:num]

    def test_are_those_of_the_largest_cosine(self):
        """Prevents neighbours by another measure, among other rows, or with the word itself first."""
        model = tiny_bert()
        embeddings = model.get_input_embeddings().weight.detach().double().numpy()
        found = EmbeddingNeighbours(model, tiny_tokenizer()).of(["film", "Good", "a"], 5)
        assert set(found) == {"film", "Good", "a"}
        for word, neighbours in found.items():
            own = embeddings[VOCABULARY.index(word.lower())]
            assert neighbours == self.expected(model, own, word.lower(), 5)

    def test_a_word_of_several_pieces_has_their_mean(self):
        """Prevents rare words, which TinyBERT replaces by neighbours too, from never being replaced."""
        model = tiny_bert()
        embeddings = model.get_input_embeddings().weight.detach().double().numpy()
        pieces = [VOCABULARY.index(piece) for piece in ("z", "##o", "##o")]
        found = EmbeddingNeighbours(model, tiny_tokenizer()).of(["zoo"], 4)
        assert found["zoo"] == self.expected(model, embeddings[pieces].mean(axis=0), None, 4)

    def test_an_unknown_word_has_none(self):
        """Prevents every word of another script from becoming the neighbours of [UNK]."""
        assert EmbeddingNeighbours(tiny_bert(), tiny_tokenizer()).of(["映画", "film"], 3).keys() == {"film"}

    def test_more_are_asked_for_than_there_are(self):
        """Prevents a crash on a small vocabulary."""
        found = EmbeddingNeighbours(tiny_bert(), tiny_tokenizer()).of(["film"], 10_000)
        assert sorted(found["film"]) == sorted(word for word in LONG_WORDS if word != "film")


class TestMaskedLM:
    def test_candidates_are_the_most_probable_words_at_the_mask(self):
        """Prevents candidates of another position, of padded rows, or of a decoder without its bias."""
        model, tokenizer = tiny_masked_lm(), tiny_tokenizer()
        with torch.no_grad():
            model.cls.predictions.bias.copy_(torch.linspace(-1, 1, len(VOCABULARY)))
        places = [Place(("The", "film,", "is", "good"), 1), Place(("a", "dull", "plot"), 2), Place(("good",), 0)]
        found = MaskedLM(model, tokenizer, CPU).candidates(places, 6)
        for place, text in zip(places, ("the [MASK], is good", "a dull [MASK]", "[MASK]"), strict=True):
            encoded = tokenizer(text, return_tensors="pt")
            at = encoded["input_ids"][0].tolist().index(tokenizer.mask_token_id)
            with torch.no_grad():
                logits = model(**encoded).logits[0, at]
            own = place.words[place.position].strip(",").lower()
            numbers = [number for number in logits.argsort(descending=True).tolist() if VOCABULARY[number] != own]
            assert found[place] == [VOCABULARY[n] for n in numbers if VOCABULARY[n] in LONG_WORDS][:6]

    def test_a_place_beyond_the_largest_length_has_none(self):
        """Prevents the candidates of a text whose mask was cut off, which are those of [CLS]."""
        far = Place(("film",) * 80, 79)
        near = Place(("film",) * 80, 3)
        found = MaskedLM(tiny_masked_lm(), tiny_tokenizer(), CPU).candidates([far, near], 4)
        assert found[far] == [] and len(found[near]) == 4

    def test_a_text_that_holds_the_word_for_a_mask_itself(self):
        """Prevents candidates of another word's place, in texts about models or with names that were masked."""
        words = ("[MASK]", "is", "a", "good", "film", "[MASK]")
        model, tokenizer = tiny_masked_lm(), tiny_tokenizer()
        encoded = tokenizer("[MASK] is a [MASK] film [MASK]", return_tensors="pt")
        with torch.no_grad():
            logits = model(**encoded).logits[0, 4]  # after [CLS], [MASK], is, a
        found = MaskedLM(model, tokenizer, CPU).candidates([Place(words, 3)], 3)[Place(words, 3)]
        numbers = [number for number in logits.argsort(descending=True).tolist() if VOCABULARY[number] != "good"]
        assert found == [VOCABULARY[n] for n in numbers if VOCABULARY[n] in LONG_WORDS][:3]

    def test_a_head_that_goes_past_its_decoder(self):
        """Prevents a traceback for MobileBERT, whose logits are a product of the decoder's weight with two others."""
        config = MobileBertConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=16,
            embedding_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            intra_bottleneck_size=8,
        )
        torch.manual_seed(0)
        model, tokenizer = MobileBertForMaskedLM(config).eval(), tiny_tokenizer()
        with torch.no_grad():
            logits = model(**tokenizer("a [MASK] film", return_tensors="pt")).logits[0, 2]
        place = Place(("a", "good", "film"), 1)
        numbers = [number for number in logits.argsort(descending=True).tolist() if VOCABULARY[number] != "good"]
        expected = [VOCABULARY[n] for n in numbers if VOCABULARY[n] in LONG_WORDS][:3]
        assert MaskedLM(model, tokenizer, CPU).candidates([place], 3)[place] == expected

    def test_only_words_of_one_piece_are_single(self):
        """Prevents one mask in the place of a word of three pieces."""
        assert MaskedLM(tiny_masked_lm(), tiny_tokenizer(), CPU).single_pieces(["film", "zoo", "Good"]) == {
            "film",
            "Good",
        }

    def test_a_checkpoint_without_the_head_gives_no_model(self, tmp_path):
        """Prevents words drawn by a random head, which look like augmentation and are noise."""
        tiny_encoder().save_pretrained(tmp_path / "encoder")
        tiny_masked_lm().save_pretrained(tmp_path / "whole")
        for name in ("encoder", "whole"):
            tiny_tokenizer(tmp_path / name)
        assert load_masked_lm(str(tmp_path / "encoder"), None, CPU) is None
        assert load_masked_lm(str(tmp_path / "whole"), None, CPU) is not None
        with pytest.raises(TeacherError, match="nowhere"):
            load_masked_lm(str(tmp_path / "nowhere"), None, CPU)


def test_pieces_are_those_inside_a_text():
    """Prevents words that are one piece at the start of a text alone."""
    assert pieces_of([], tiny_tokenizer()) == {}
    found = pieces_of(["film", "zoo", "film"], tiny_tokenizer())
    assert {word: len(ids) for word, ids in found.items()} == {"film": 1, "zoo": 3}
