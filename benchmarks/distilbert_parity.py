"""How exact is a DistilBERT made of a BERT?

    python benchmarks/distilbert_parity.py --out build/bench
    GLUE_DIR=... python benchmarks/distilbert_parity.py --out build/bench --pairs mrpc

On the real weights of all-MiniLM-L6-v2 (384 wide) with all layers kept: hidden states of each layer, with row 0 of the
token types folded into the positions and without; logits of the vocabulary, from a seeded random head on the real
encoder, because the package has none. The same for random BERTs of other widths. With `--pairs`, what the loss of
token-type row 1 costs a teacher that was fine-tuned on pairs of texts.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from cost import setting_record
from job import BASE, LEARNING_RATE, fine_tune, tokenized, training_arguments
from report import write_json
from torch import Tensor, nn
from transformers import BatchEncoding, BertConfig, BertForMaskedLM, BertModel, PreTrainedModel, set_seed

from distilbert_kd.data.loading import load_task
from distilbert_kd.evaluation import evaluate_logits
from distilbert_kd.recipe import Data
from distilbert_kd.scoring import predict_logits
from distilbert_kd.student.build import build_student, count_layers
from distilbert_kd.teacher import load_base, load_tokenizer, model_location


logger = logging.getLogger(__name__)

#: Of different lengths, so that some positions are padding.
TEXTS = (
    "It is.",
    "A film that is as good as the book, and much shorter.",
    "The committee will meet again on Thursday to decide whether the old bridge can be repaired before the winter.",
    "Why would anyone, having read the first page, go on to the second?",
)
WIDTHS = (128, 256, 768)
LIMIT = 1e-5


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, and writes `distilbert_parity.json`; exits with 1 where a difference is 1e-5 or more."""
    parser = argparse.ArgumentParser(description="Differences between BERT and the DistilBERT made of it.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--pairs", choices=("mrpc", "rte"), help="also measure what pairs of texts lose, on this task")
    parser.add_argument("--pair-rows", type=int, default=2000, help="to fine-tune the teacher of pairs on")
    parser.add_argument("--pair-epochs", type=int, default=3)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    datasets.disable_progress_bars()
    torch.set_num_threads(1)
    path = options.out / "distilbert_parity.json"
    record = json.loads(path.read_text("utf-8")) if path.exists() else {}
    record |= {"setting": setting_record(1), "real": _real(), "random": [_random(width) for width in WIDTHS]}
    if options.pairs:
        record[f"pairs_{options.pairs}"] = _pairs(options.pairs, options.pair_rows, options.pair_epochs)
    write_json(path, record)
    logger.info("%s", json.dumps(record, indent=1))
    differences = [record["real"]["hidden_states"], record["real"]["vocabulary_logits"]]
    differences += [value for each in record["random"] for name, value in each.items() if name != "width"]
    if max(differences) >= LIMIT:
        raise SystemExit(f"Expected differences below {LIMIT}, got {max(differences)}.")


def _real() -> dict[str, float]:
    inputs = load_tokenizer(BASE)(list(TEXTS), padding=True, return_tensors="pt")
    bert = BertModel.from_pretrained(model_location(BASE)).eval()
    set_seed(0)
    with_head = BertForMaskedLM(bert.config).eval()
    with_head.bert.load_state_dict({n: w for n, w in bert.state_dict().items() if not n.startswith("pooler.")})
    student: Any = _whole(bert)
    folded = _differences(student, bert, inputs)
    row = bert.embeddings.token_type_embeddings.weight[0].detach()
    with torch.no_grad():
        student.embeddings.position_embeddings.weight -= row
    unfolded = _differences(student, bert, inputs)
    return {
        "width": bert.config.hidden_size,
        "hidden_states": folded["hidden_states"],
        "mean_cosine": folded["mean_cosine"],
        "vocabulary_logits": _differences(_whole(with_head), with_head, inputs)["outputs"],
        "hidden_states_without_folding": unfolded["hidden_states"],
        "mean_cosine_without_folding": unfolded["mean_cosine"],
        "norm_of_row_0": row.norm().item(),
    }


def _random(width: int) -> dict[str, float]:
    set_seed(0)
    config = BertConfig(hidden_size=width, num_attention_heads=width // 32, intermediate_size=4 * width)
    config.num_hidden_layers, config.vocab_size = 3, 2000
    bert = BertForMaskedLM(config).eval()
    inputs = BatchEncoding({"input_ids": torch.randint(5, 2000, (4, 40)), "attention_mask": torch.ones(4, 40)})
    inputs["attention_mask"][0, 25:] = 0
    found = _differences(_whole(bert), bert, inputs)
    return {"width": width, "hidden_states": found["hidden_states"], "vocabulary_logits": found["outputs"]}


def _whole(bert: PreTrainedModel) -> PreTrainedModel:
    return build_student(bert, count_layers(bert), "first", "distilbert").eval()


@torch.no_grad()
def _differences(student: PreTrainedModel, bert: PreTrainedModel, inputs: BatchEncoding) -> dict[str, float]:
    """The largest differences over the positions that are no padding, and the cosine of the last hidden states."""
    kept = inputs["attention_mask"].bool()
    ours = {name: tensor for name, tensor in inputs.items() if name != "token_type_ids"}
    mine, theirs = student(**ours, output_hidden_states=True), bert(**inputs, output_hidden_states=True)

    def largest(one: Tensor, other: Tensor) -> float:
        return (one - other)[kept].abs().max().item()

    pairs = list(zip(mine.hidden_states, theirs.hidden_states, strict=True))
    cosine = nn.functional.cosine_similarity(*(states[kept] for states in pairs[-1]), dim=-1)
    return {
        "hidden_states": max(largest(*pair) for pair in pairs),
        "outputs": largest(mine[0], theirs[0]),
        "mean_cosine": cosine.mean().item(),
    }


def _pairs(task: str, num_rows: int, num_epochs: int) -> dict[str, float]:
    """A teacher of pairs, itself without token types, and as a DistilBERT, all layers kept and none trained again."""
    data = load_task(Data(task=task), task)
    tokenizer = load_tokenizer(BASE)
    train = data.train.shuffle(seed=0).select(range(min(num_rows, len(data.train))))
    rows, dev = (tokenized(split, tokenizer) for split in (train, next(iter(data.evaluation.values()))))
    set_seed(0)
    teacher = load_base(BASE, data.label_names)
    fine_tune(teacher, tokenizer, rows, num_epochs, LEARNING_RATE)
    labels = np.array(dev["labels"][:])

    def logits_of(model: PreTrainedModel, split: datasets.Dataset) -> np.ndarray:
        return predict_logits(model, tokenizer, split, training_arguments(1, 0))

    expected = logits_of(teacher, dev)
    found = {
        "row_1_lost": logits_of(teacher, dev.remove_columns("token_type_ids")),
        "distilbert": logits_of(_whole(teacher), dev),
    }
    rows_of_types = teacher.bert.embeddings.token_type_embeddings.weight.detach()
    record = {
        "rows": len(rows),
        "epochs": num_epochs,
        "dev_rows": len(dev),
        "norm_of_row_1_minus_row_0": (rows_of_types[1] - rows_of_types[0]).norm().item(),
        "teacher_score": evaluate_logits(task, expected, labels).score,
    }
    for name, logits in found.items():
        result = evaluate_logits(task, logits, labels, expected)
        nearness: Any = result.fidelity
        record[f"{name}_score"] = result.score
        record[f"{name}_kl_nats"] = nearness.kl_nats
        record[f"{name}_same_class"] = nearness.agreement
    return record


if __name__ == "__main__":
    main()
