"""The training rows of a task with what augmentation adds to them, made once and kept on disk.

What is kept is found by what it depends on: texts and labels, scheme and seed, the bytes of the teacher's embeddings
and of the masked language model, both tokenizers. It is written as the teacher's answers are.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilbert_kd.augmentation.copies import EMBEDDING_NEIGHBOURS, MASKED_LM, Scheme, make_copies
from distilbert_kd.augmentation.embedding_neighbours import EmbeddingNeighbours
from distilbert_kd.augmentation.masked_lm import MaskedLM
from distilbert_kd.compatibility import tokenizer_identity
from distilbert_kd.data.labels import MISSING_LABEL
from distilbert_kd.data.task_data import IS_AUGMENTED, TaskData, fingerprint
from distilbert_kd.dataset_cache import read_dataset, write_dataset
from distilbert_kd.errors import StorageError
from distilbert_kd.processes import failing_together
from distilbert_kd.storage import reason_of
from distilbert_kd.weights import weights_sha256


__all__ = ["METHOD", "SOURCE", "TRANSFER", "Augmented", "augment"]

logger = logging.getLogger(__name__)

#: Changes when the same settings make other rows.
_FORMAT = 1

#: Columns of the added rows: the number of the row that a copy is of, -1 for a transfer row; and what made it.
SOURCE = "source"
METHOD = "method"
TRANSFER = "transfer_set"


@dataclass(frozen=True)
class Augmented:
    """Training rows with what was added.

    Attributes:
        train: Gold rows, copies, transfer rows; `text`, maybe `text_pair`, `label`, and `is_augmented`, true for all
            but the gold rows. A transfer row has no label (-100).
        added: The last two of them, with `source` and `method`.
        num_gold: Rows that were there.
        num_dropped: Copies and transfer rows that were equal to another row, of the training set or of a scored split.
    """

    train: datasets.Dataset
    added: datasets.Dataset
    num_gold: int
    num_dropped: int

    @property
    def counts(self) -> dict[str, int]:
        """How many rows are gold, copies (`augmented`) and of the transfer set; and how many were dropped."""
        num_transfer = self.added[METHOD][:].count(TRANSFER)
        num_copies = len(self.added) - num_transfer
        return {
            "gold": self.num_gold,
            "augmented": num_copies,
            "transfer": num_transfer,
            "dropped": self.num_dropped,
        }


def augment(
    data: TaskData,
    scheme: Scheme,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    masked_lm: MaskedLM | None,
    transfer: datasets.Dataset | None,
    cache_dir: Path,
) -> Augmented:
    """The training rows with their copies and those of a transfer set, from the cache or made now.

    Every process calls this; one of each machine makes and writes them.

    Args:
        data: the task; rows that are equal to a scored one are not added.
        scheme: how copies are made. Without a masked language model its share goes to embedding neighbours.
        teacher: for its input embeddings.
        tokenizer: the teacher's.
        masked_lm: for the scheme `masked_lm`.
        transfer: unlabelled texts.
        cache_dir: where added rows are kept.

    Returns:
        All rows.

    Raises:
        StorageError: they can't be written, or machines made different ones.
    """
    scheme = _possible(scheme, masked_lm)
    place = cache_dir / _key(data, scheme, teacher, tokenizer, masked_lm, transfer)
    added = read_dataset(place, "augmentation: the rows")
    if not all(gather_object([added is not None])) or added is None:
        with failing_together():
            if PartialState().is_local_main_process:
                replaces = {MASKED_LM, EMBEDDING_NEIGHBOURS} & scheme.methods.keys()
                neighbours = EmbeddingNeighbours(teacher, tokenizer) if replaces else None
                _write(place, _made(data, scheme, neighbours, masked_lm, transfer))
        added = read_dataset(place, "augmentation: the rows")
    else:
        logger.info("augmentation: %d rows found in %s", len(added), cache_dir)
    found = gather_object([None if added is None else fingerprint(added)])
    if added is None or len(set(found)) > 1:
        raise StorageError(f"Expected the same whole augmented rows in {place} for every process. Is the disk sound?")
    num_drafted = scheme.num_copies * len(data.train) + (0 if transfer is None else len(transfer))
    gold = data.train.add_column(IS_AUGMENTED, [False] * len(data.train))
    train = gold
    if len(added):  # upstream can't put columns beside no rows
        marked = added.add_column(IS_AUGMENTED, [True] * len(added)).select_columns(gold.column_names)
        train = datasets.concatenate_datasets([gold, marked.cast(gold.features)])
    return Augmented(train, added, len(data.train), num_drafted - len(added))


def _possible(scheme: Scheme, masked_lm: MaskedLM | None) -> Scheme:
    """The scheme, its weight of the masked language model given to embedding neighbours where there is none."""
    if masked_lm is not None or MASKED_LM not in scheme.methods:
        return scheme
    methods = dict(scheme.methods)
    methods[EMBEDDING_NEIGHBOURS] = methods.get(EMBEDDING_NEIGHBOURS, 0.0) + methods.pop(MASKED_LM)
    return Scheme(**{**asdict(scheme), "methods": methods})


def _made(
    data: TaskData,
    scheme: Scheme,
    neighbours: EmbeddingNeighbours | None,
    masked_lm: MaskedLM | None,
    transfer: datasets.Dataset | None,
) -> datasets.Dataset:
    """The added rows, none of them equal to another row."""
    gold = data.train.with_format(None)
    columns = [name for name in ("text", "text_pair") if name in gold.column_names]
    candidates: list[tuple[dict[str, object], Mapping[str, object]]] = []
    for copy in make_copies(gold, scheme, neighbours, masked_lm):
        row = gold[copy.source]
        texts = {name: row[name] for name in columns} | {copy.column: copy.text}
        candidates.append((texts, {"label": row["label"], SOURCE: copy.source, METHOD: copy.method}))
    for row in [] if transfer is None else transfer.with_format(None):
        texts = {name: row[name] for name in columns}
        candidates.append((texts, {"label": MISSING_LABEL, SOURCE: -1, METHOD: TRANSFER}))
    seen = {("",) * len(columns)}
    seen |= {_bare(row) for rows in (gold, *data.evaluation.values()) for row in rows.select_columns(columns)}
    added = []
    for texts, rest in candidates:
        if _bare(texts) not in seen:
            seen.add(_bare(texts))
            added.append({**texts, **rest})
    features = {name: gold.features[name] for name in (*columns, "label")}
    features |= {SOURCE: datasets.Value("int64"), METHOD: datasets.Value("string")}
    values = {name: [row[name] for row in added] for name in features}
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


def _bare(texts: Mapping[str, object]) -> tuple[str, ...]:
    """Texts without what tells apart no words: case and the width of blanks."""
    return tuple(" ".join(str(text).split()).casefold() for text in texts.values())


def _key(
    data: TaskData,
    scheme: Scheme,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    masked_lm: MaskedLM | None,
    transfer: datasets.Dataset | None,
) -> str:
    """SHA-256, in hexadecimal, over all that the added rows depend on."""
    asked = masked_lm if MASKED_LM in scheme.methods else None
    parts = {
        "format": _FORMAT,
        "rows": {name: fingerprint(rows) for name, rows in {"train": data.train, **data.evaluation}.items()},
        "transfer": None if transfer is None else fingerprint(transfer),
        "scheme": asdict(scheme),
        "embeddings": [weights_sha256(teacher.get_input_embeddings()), tokenizer_identity(tokenizer)],
        "masked_lm": _identity_of(asked) if asked else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _identity_of(masked_lm: MaskedLM) -> list[object]:
    not_read = ("_name_or_path", "transformers_version")
    config = {name: value for name, value in masked_lm.model.config.to_dict().items() if name not in not_read}
    return [weights_sha256(masked_lm.model), config, tokenizer_identity(masked_lm.tokenizer)]


def _write(place: Path, added: datasets.Dataset) -> None:
    try:
        write_dataset(place, added)
    except OSError as error:
        raise StorageError(
            f"Expected to keep augmented rows in {place.parent}, got: {reason_of(error)}. Make room there, or choose "
            "another folder (teacher.cache_dir)."
        ) from error
