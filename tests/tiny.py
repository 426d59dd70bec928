"""Models and tokenizers small enough to build in milliseconds, made in code: no test needs a file from the net."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast


SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = tuple(
    # Film reviews, the demo's subject, and a few pairs for the tasks with two texts. The order is the vocabulary's.
    """a all an and are as at awful bad beautiful best boring but by cast characters clever comedy could dull end
    ending ever every fails fast film for from fun funny good great had has have he her his if in is it its just
    kind less like little long love made make man more most movie music never no not of on one or plot poor quite
    really scene script see she slow so some story strong sweet than that the there they this time to too two up
    very was watch way weak well what when who with woman work worst year you""".split()
)
LETTERS = tuple("bcdefghijklmnopqrstuvwxyz0123456789.,!?'-")  # "a" is a word already
ENDINGS = tuple(f"##{character}" for character in "abcdefghijklmnopqrstuvwxyz0123456789")
VOCABULARY = (*SPECIAL_TOKENS, *WORDS, *LETTERS, *ENDINGS)


def tiny_tokenizer(folder: Path | None = None) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer with BERT's special tokens and segments, about 180 entries.

    Any ASCII word can be spelled out in single letters, so `[UNK]` is left to other scripts.

    Args:
        folder: where to save it too, beside a model for instance.

    Returns:
        The tokenizer, always with the same vocabulary; it gives `token_type_ids`.
    """
    vocabulary = {token: index for index, token in enumerate(VOCABULARY)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    if folder is not None:
        tokenizer.save_pretrained(folder)
    return tokenizer


def tiny_bert(num_layers: int = 4, num_labels: int = 2, seed: int = 0, **config: Any) -> BertForSequenceClassification:
    """A random BERT classifier for `tiny_tokenizer`: 32 wide, 2 heads, in eval mode.

    The weights are larger than BERT's own start (standard deviation 0.2, not 0.02), so that the outputs of two models
    or of two inputs differ visibly.

    Args:
        num_layers: encoder layers.
        num_labels: outputs of the head.
        seed: of the weights; the same seed and shape give the same weights, whatever ran before.
        **config: further fields of `BertConfig`, or others than these.

    Returns:
        The model; the global random state is left as it was.
    """
    fields = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "num_labels": num_labels,
        "initializer_range": 0.2,
        "pad_token_id": VOCABULARY.index("[PAD]"),
        **config,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BertForSequenceClassification(BertConfig(**fields)).eval()
