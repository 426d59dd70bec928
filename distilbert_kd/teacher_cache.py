"""The teacher is asked once for each row, and its answers are kept on disk.

A frozen teacher without dropout says the same of a row in every epoch, for every seed, for every student. Its
logits are kept as a column of an Arrow data set, memory-mapped, which stands beside the rows:
shuffling, selecting, sharing by ranks and resuming stay right because the column moves with the rows.

A cache is found by what its logits depend on, and by nothing else: the bytes of the teacher's weights, its
configuration, its tokenizer, the ordered texts, the largest length and the number type. A teacher that was trained
again under the same name, or one changed row, has another key. (`datasets.map` hashes the call, in which a teacher is
but a path.)

A reader finds a whole cache or none, see `distilbert_kd.dataset_cache`.
"""

import hashlib
import json
import logging
from pathlib import Path

import datasets
import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from huggingface_hub.constants import HF_HOME
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from distilbert_kd.compatibility import tokenizer_identity
from distilbert_kd.data.task_data import TaskData, fingerprint
from distilbert_kd.dataset_cache import read_dataset, write_dataset
from distilbert_kd.errors import DivergedError, StorageError
from distilbert_kd.processes import failing_together
from distilbert_kd.row_checks import TEACHER_LOGITS
from distilbert_kd.scoring import predict_logits
from distilbert_kd.storage import check_writable, reason_of, room_for
from distilbert_kd.task_rows import Reader
from distilbert_kd.weights import weights_sha256


__all__ = [
    "DEFAULT_CACHE_DIR",
    "ask_teacher",
    "cache_key",
    "cached_teacher_logits",
    "check_cache_dir",
    "logits_column",
    "precision_of",
]

logger = logging.getLogger(__name__)

DEFAULT_CACHE_DIR = Path(HF_HOME) / "distilbert_kd" / "teacher_logits"

#: Changes when the meaning of a key does.
_FORMAT = 1
_NOT_OF_THE_CONFIG = ("_name_or_path", "transformers_version", "id2label", "label2id", "dtype", "architectures") + (
    "use_cache",  # of decoders; every Trainer sets it, so that the second question would have another key
)


def ask_teacher(
    teacher: Reader,
    data: TaskData,
    split: str,
    max_length: int,
    arguments: TrainingArguments,
    cache_dir: Path | None = DEFAULT_CACHE_DIR,
) -> datasets.Dataset:
    """The teacher's logits for one split, through the cache or without one.

    Args:
        teacher: a classifier in the data's order of labels, and the rows as it reads them.
        data: the same rows as texts.
        split: "train" or the name of an evaluation split.
        max_length: that the rows were cut to.
        arguments: batch size, device and precision.
        cache_dir: where caches are kept; None for none.

    Returns:
        One column, `teacher_logits`, in the order of the rows.

    Raises:
        DivergedError: a logit is not finite.
        StorageError: the cache can't be written.
    """
    is_train = split == "train"
    texts = data.train if is_train else data.evaluation[split]
    rows = teacher.rows.train if is_train else teacher.rows.evaluation[split]
    if cache_dir is None:
        return _column(predict_logits(teacher.model, teacher.tokenizer, rows, arguments))
    return cached_teacher_logits(teacher.model, teacher.tokenizer, texts, rows, max_length, arguments, cache_dir)


def cached_teacher_logits(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: datasets.Dataset,
    rows: datasets.Dataset,
    max_length: int,
    arguments: TrainingArguments,
    cache_dir: Path = DEFAULT_CACHE_DIR,
) -> datasets.Dataset:
    """The teacher's logits for each row, from the cache or from one pass of the teacher.

    In a distributed run every process calls this: the pass is shared by all, and one process of each machine writes.

    Args:
        teacher: a classifier in the data's order of labels.
        tokenizer: the teacher's.
        texts: `text` and, for pairs, `text_pair`; they go into the key.
        rows: the same rows, tokenised for the teacher.
        max_length: that the rows were cut to.
        arguments: batch size, device and precision of the pass.
        cache_dir: where caches are kept.

    Returns:
        One column, `teacher_logits`: fixed-size lists of C float32, row by row.

    Raises:
        DivergedError: a logit is not finite.
        StorageError: the cache can't be written.
    """
    place = cache_dir / cache_key(teacher, tokenizer, texts, max_length, precision_of(arguments))
    found = read_dataset(place, "teacher", len(rows))
    if all(gather_object([found is not None])) and found is not None:
        logger.info("teacher: logits of %d rows found in %s", len(rows), cache_dir)
        return found
    with failing_together():
        if PartialState().is_local_main_process:
            check_cache_dir(cache_dir)
    logger.info("teacher: asking for the logits of %d rows, once", len(rows))
    logits = predict_logits(teacher, tokenizer, rows, arguments)
    _refuse_non_finite(logits)  # on every process, before one of them writes
    with failing_together():
        if PartialState().is_local_main_process:
            _write(place, logits)
    written = read_dataset(place, "teacher", len(rows))
    if written is None:
        raise StorageError(f"Expected the teacher's logits in {place}, got none that is whole. Is the disk sound?")
    return written


def check_cache_dir(cache_dir: Path) -> None:
    """Refuses a folder that can't be written, before a teacher is asked or trained.

    Args:
        cache_dir: where caches are kept.

    Raises:
        StorageError: it can't be made or written.
    """
    try:
        check_writable(cache_dir)
    except OSError as error:
        raise StorageError(
            f"Expected to make and write the folder for the teacher's answers, {cache_dir}, got: {reason_of(error)}. "
            "Choose another folder (teacher.cache_dir), or set teacher.cache=false."
        ) from error


def logits_column(answers: datasets.Dataset) -> np.ndarray:
    """The logits of a data set with the column `teacher_logits`: (B, C)."""
    return np.asarray(answers.with_format("numpy")[TEACHER_LOGITS][:])


def precision_of(arguments: TrainingArguments) -> str:
    """The number type that a pass computes in: "float32", "bf16" or "fp16", and whether its products are in TF32."""
    precision = "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "float32"
    return f"{precision} tf32" if arguments.tf32 else precision


def cache_key(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: datasets.Dataset,
    max_length: int,
    precision: str = "float32",
) -> str:
    """SHA-256, in hexadecimal, over all that the logits depend on.

    Args:
        teacher: its weights and configuration count, its name and its label names don't.
        tokenizer: the teacher's.
        texts: `text` and `text_pair`, in order.
        max_length: that the rows are cut to.
        precision: that the pass computes in, see `precision_of`.

    Returns:
        64 characters.
    """
    config = {name: value for name, value in teacher.config.to_dict().items() if name not in _NOT_OF_THE_CONFIG}
    parts = {
        "format": _FORMAT,
        "weights": weights_sha256(teacher),
        "config": config,
        "tokenizer": tokenizer_identity(tokenizer),
        "texts": fingerprint(texts.select_columns([n for n in ("text", "text_pair") if n in texts.column_names])),
        "max_length": max_length,
        "dtype": "float32",
        "precision": precision,
        "truncation_side": tokenizer.truncation_side,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _refuse_non_finite(logits: np.ndarray) -> None:
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=-1))
    if len(broken):
        raise DivergedError(
            f"Expected finite logits from the teacher, got NaN or infinity for {len(broken)} rows "
            f"(first: {', '.join(map(str, broken[:5]))}). Its weights are broken, or half precision overflows."
        )


def _write(place: Path, logits: np.ndarray) -> None:
    try:
        write_dataset(place, _column(logits))
    except OSError as error:
        raise StorageError(
            f"Expected to keep the teacher's logits in {place.parent}, got: {reason_of(error)} "
            f"({room_for(place.parent, logits.nbytes)[1]}). Make room there, choose another folder "
            "(teacher.cache_dir), or set teacher.cache=false."
        ) from error


def _column(logits: np.ndarray) -> datasets.Dataset:
    _refuse_non_finite(logits)
    features = datasets.Features({TEACHER_LOGITS: datasets.List(datasets.Value("float32"), length=logits.shape[1])})
    return datasets.Dataset.from_dict({TEACHER_LOGITS: logits.astype(np.float32)}, features=features)
