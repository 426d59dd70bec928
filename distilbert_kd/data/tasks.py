"""The nine GLUE tasks and the AX diagnostic set: files, columns, labels, sizes, and what the benchmark's server takes.

No heavy imports: a recipe's `data.task` is checked against `TASKS` before anything is loaded.

Source: https://gluebenchmark.com (file layout, submission format) and https://huggingface.co/datasets/nyu-mll/glue
(column names, label order, row counts).
"""

from dataclasses import dataclass
from typing import Literal

from distilbert_kd.errors import DataError


__all__ = ["AX", "TASKS", "TRAINABLE_TASKS", "GlueSplit", "GlueTask", "get_task"]

Role = Literal["train", "evaluation", "test"]


@dataclass(frozen=True)
class GlueSplit:
    """One split of a GLUE task, as the Hub names it and as the original file holds it."""

    name: str
    role: Role
    file: str
    columns: tuple[str, ...]
    num_rows: int
    has_header: bool = True
    submission_file: str | None = None

    @property
    def stem(self) -> str:
        """The file name without its ending, such as `dev_matched`."""
        return self.file.removesuffix(".tsv")


@dataclass(frozen=True)
class GlueTask:
    """One GLUE task.

    `file_labels`, `label_names` and `submission_labels` have the same order, that of the Hub's `ClassLabel`;
    all three are None for regression. `index` is the column that numbers the rows of a test file.
    """

    name: str
    folders: tuple[str, ...]
    text: str
    text_pair: str | None
    label: str | None
    hub_text: str
    hub_text_pair: str | None
    label_names: tuple[str, ...] | None
    file_labels: tuple[str, ...] | None
    submission_labels: tuple[str, ...] | None
    metric: str
    splits: tuple[GlueSplit, ...]
    index: str = "index"
    has_broken_lines: bool = False

    def splits_of(self, role: Role) -> tuple[GlueSplit, ...]:
        """The splits with this role, the main one first."""
        return tuple(split for split in self.splits if split.role == role)


def get_task(name: str) -> GlueTask:
    """Looks a task up.

    Args:
        name: Its name in the Hub's spelling, such as `sst2`.

    Returns:
        The task's record.

    Raises:
        DataError: No GLUE task has this name.
    """
    if name not in TASKS:
        raise DataError(f"data.task: expected one of {', '.join(TASKS)}; got {name!r}.")
    return TASKS[name]


_BINARY_DIGITS = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
_NLI = ("entailment", "neutral", "contradiction")
_PAIR = ("index", "sentence1", "sentence2")
_MNLI_START = (
    "index",
    "promptID",
    "pairID",
    "genre",
    "sentence1_binary_parse",
    "sentence2_binary_parse",
    "sentence1_parse",
    "sentence2_parse",
    "sentence1",
    "sentence2",
)
_MNLI_DEV = (*_MNLI_START, "label1", "label2", "label3", "label4", "label5", "gold_label")
_STSB_TEST = ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2")
_COLA = ("source", "label", "mark", "sentence")
_MRPC = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
_QQP = ("id", "qid1", "qid2", "question1", "question2", "is_duplicate")

_AX_SPLIT = GlueSplit("ax", "test", "AX.tsv", _PAIR, 1104, submission_file="AX.tsv")


def _splits(
    train: tuple[str, ...],
    test: tuple[str, ...],
    sizes: tuple[int, int, int],
    submission: str,
    has_header: bool = True,
) -> tuple[GlueSplit, ...]:
    """Three splits in `train.tsv`, `dev.tsv` (same columns) and `test.tsv`."""
    return (
        GlueSplit("train", "train", "train.tsv", train, sizes[0], has_header),
        GlueSplit("validation", "evaluation", "dev.tsv", train, sizes[1], has_header),
        GlueSplit("test", "test", "test.tsv", test, sizes[2], submission_file=submission),
    )


_COLA_TASK = GlueTask(
    name="cola",
    folders=("CoLA",),
    text="sentence",
    text_pair=None,
    label="label",
    hub_text="sentence",
    hub_text_pair=None,
    label_names=("unacceptable", "acceptable"),
    file_labels=_BINARY_DIGITS,
    submission_labels=_BINARY_DIGITS,
    metric="cola",
    splits=_splits(_COLA, ("index", "sentence"), (8551, 1043, 1063), "CoLA.tsv", has_header=False),
)

_SST2_TASK = GlueTask(
    name="sst2",
    folders=("SST-2",),
    text="sentence",
    text_pair=None,
    label="label",
    hub_text="sentence",
    hub_text_pair=None,
    label_names=("negative", "positive"),
    file_labels=_BINARY_DIGITS,
    submission_labels=_BINARY_DIGITS,
    metric="sst2",
    splits=_splits(("sentence", "label"), ("index", "sentence"), (67349, 872, 1821), "SST-2.tsv"),
)

_MRPC_TASK = GlueTask(
    name="mrpc",
    folders=("MRPC",),
    text="#1 String",
    text_pair="#2 String",
    label="Quality",
    hub_text="sentence1",
    hub_text_pair="sentence2",
    label_names=("not_equivalent", "equivalent"),
    file_labels=_BINARY_DIGITS,
    submission_labels=_BINARY_DIGITS,
    metric="mrpc",
    splits=_splits(_MRPC, ("index", *_MRPC[1:]), (3668, 408, 1725), "MRPC.tsv"),
)

_STSB_TASK = GlueTask(
    name="stsb",
    folders=("STS-B",),
    text="sentence1",
    text_pair="sentence2",
    label="score",
    hub_text="sentence1",
    hub_text_pair="sentence2",
    label_names=None,
    file_labels=None,
    submission_labels=None,
    metric="stsb",
    splits=_splits((*_STSB_TEST, "score"), _STSB_TEST, (5749, 1500, 1379), "STS-B.tsv"),
)

# The original train file has a few rows broken in two by a line end inside a question, which every reader of the
# benchmark leaves out. The Hub's copy has 363,846 training rows.
_QQP_TASK = GlueTask(
    name="qqp",
    folders=("QQP",),
    text="question1",
    text_pair="question2",
    label="is_duplicate",
    hub_text="question1",
    hub_text_pair="question2",
    label_names=("not_duplicate", "duplicate"),
    file_labels=_BINARY_DIGITS,
    submission_labels=_BINARY_DIGITS,
    metric="qqp",
    splits=_splits(_QQP, ("id", "question1", "question2"), (363849, 40430, 390965), "QQP.tsv"),
    index="id",
    has_broken_lines=True,
)

_MNLI_TASK = GlueTask(
    name="mnli",
    folders=("MNLI",),
    text="sentence1",
    text_pair="sentence2",
    label="gold_label",
    hub_text="premise",
    hub_text_pair="hypothesis",
    label_names=_NLI,
    file_labels=_NLI,
    submission_labels=_NLI,
    metric="mnli",
    splits=(
        GlueSplit("train", "train", "train.tsv", (*_MNLI_START, "label1", "gold_label"), 392702),
        GlueSplit("validation_matched", "evaluation", "dev_matched.tsv", _MNLI_DEV, 9815),
        GlueSplit("validation_mismatched", "evaluation", "dev_mismatched.tsv", _MNLI_DEV, 9832),
        GlueSplit("test_matched", "test", "test_matched.tsv", _MNLI_START, 9796, submission_file="MNLI-m.tsv"),
        GlueSplit("test_mismatched", "test", "test_mismatched.tsv", _MNLI_START, 9847, submission_file="MNLI-mm.tsv"),
    ),
)

_QNLI_TASK = GlueTask(
    name="qnli",
    folders=("QNLI",),
    text="question",
    text_pair="sentence",
    label="label",
    hub_text="question",
    hub_text_pair="sentence",
    label_names=_ENTAILMENT,
    file_labels=_ENTAILMENT,
    submission_labels=_ENTAILMENT,
    metric="qnli",
    splits=_splits(
        ("index", "question", "sentence", "label"), ("index", "question", "sentence"), (104743, 5463, 5463), "QNLI.tsv"
    ),
)

_RTE_TASK = GlueTask(
    name="rte",
    folders=("RTE",),
    text="sentence1",
    text_pair="sentence2",
    label="label",
    hub_text="sentence1",
    hub_text_pair="sentence2",
    label_names=_ENTAILMENT,
    file_labels=_ENTAILMENT,
    submission_labels=_ENTAILMENT,
    metric="rte",
    splits=_splits((*_PAIR, "label"), _PAIR, (2490, 277, 3000), "RTE.tsv"),
)

_WNLI_TASK = GlueTask(
    name="wnli",
    folders=("WNLI",),
    text="sentence1",
    text_pair="sentence2",
    label="label",
    hub_text="sentence1",
    hub_text_pair="sentence2",
    label_names=("not_entailment", "entailment"),
    file_labels=_BINARY_DIGITS,
    submission_labels=_BINARY_DIGITS,
    metric="wnli",
    splits=_splits((*_PAIR, "label"), _PAIR, (635, 71, 146), "WNLI.tsv"),
)

# No training rows and no public labels: a model trained on MNLI predicts it.
AX = GlueTask(
    name="ax",
    folders=("AX", "diagnostic"),
    text="sentence1",
    text_pair="sentence2",
    label=None,
    hub_text="premise",
    hub_text_pair="hypothesis",
    label_names=_NLI,
    file_labels=_NLI,
    submission_labels=_NLI,
    metric="mnli",
    splits=(_AX_SPLIT,),
)

TRAINABLE_TASKS: tuple[str, ...] = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")

TASKS: dict[str, GlueTask] = {
    task.name: task
    for task in (
        _COLA_TASK,
        _SST2_TASK,
        _MRPC_TASK,
        _STSB_TASK,
        _QQP_TASK,
        _MNLI_TASK,
        _QNLI_TASK,
        _RTE_TASK,
        _WNLI_TASK,
        AX,
    )
}
