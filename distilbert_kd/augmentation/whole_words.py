"""Which entries of a vocabulary are whole words, for a tokenizer of any kind."""

from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase


__all__ = ["pieces_of", "whole_words"]


def whole_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The entries that stand for one word of letters, by number.

    An entry is one if the tokenizer, given its text after a blank, gives nothing but it: so no `##ing` of WordPiece,
    no part of a byte-level vocabulary, no special token. Single letters are left out.

    Args:
        tokenizer: of any kind.

    Returns:
        Number to word, by number.
    """
    ids = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    words = [str(tokenizer.decode([number])).strip() for number in ids]
    kept = [(number, word) for number, word in zip(ids, words, strict=True) if len(word) > 1 and word.isalpha()]
    pieces = pieces_of([word for _, word in kept], tokenizer)
    return {number: word for number, word in kept if pieces[word] == [number]}


def pieces_of(words: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """The pieces of each word as it stands inside a text, after a blank.

    Args:
        words: without blanks.
        tokenizer: of any kind.

    Returns:
        Word to token numbers.
    """
    different = list(dict.fromkeys(words))
    if not different:
        return {}
    texts = [f" {word}" for word in different]
    encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False)
    return dict(zip(different, encoded["input_ids"], strict=True))
