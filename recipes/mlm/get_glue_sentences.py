"""Writes the sentences of the GLUE training files, each once, one a line.

    GLUE_DIR=glue_data python recipes/mlm/get_glue_sentences.py OUT_FOLDER

GLUE_DIR names a folder in the layout of the original glue_data; a task that isn't there is left out. Only training
files are read: no sentence of a validation or test file gets in, unless a training file has it, too. The sentences are
written to sentences.txt in an order that is random and always the same, so that the first 10,000 are of all tasks.
"""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from distilbert_kd.data.glue import glue_splits_from_folder
from distilbert_kd.data.tasks import TASKS, TRAINABLE_TASKS
from distilbert_kd.errors import DataError


__all__ = ["main", "sentences_of", "write_sentences"]


def sentences_of(task: str, root: Path) -> Iterator[str]:
    """The texts of a task's training file, both of a pair, with single spaces."""
    splits, _ = glue_splits_from_folder(TASKS[task], root)
    (train,) = (split for split in splits if split.role == "train")
    for column in filter(None, (train.text, train.text_pair)):
        for text in train.table.columns[column]:
            yield " ".join(str(text).split())


def write_sentences(root: Path, folder: Path) -> dict[str, int]:
    """Writes the sentences of all tasks that are there.

    Args:
        root: in the layout of glue_data.
        folder: for sentences.txt.

    Returns:
        How many sentences each task brought that no task before it had.
    """
    found: dict[str, None] = {}
    counts = {}
    for task in TRAINABLE_TASKS:
        before = len(found)
        try:
            found |= dict.fromkeys(filter(None, sentences_of(task, root)))
        except DataError as error:
            print(f"{task}: left out: {error}", file=sys.stderr)
            continue
        counts[task] = len(found) - before
    sentences = list(found)
    random.Random(0).shuffle(sentences)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sentences.txt").write_text("".join(f"{sentence}\n" for sentence in sentences), encoding="utf-8")
    return counts


def main() -> int:
    """Reads the folder in GLUE_DIR and the argument, and says what was written."""
    root = os.environ.get("GLUE_DIR", "")
    if len(sys.argv) != 2 or not Path(root).is_dir() or not root:
        print(f"{__doc__}\nExpected one argument and a folder in GLUE_DIR, got {sys.argv[1:]} and {root!r}.")
        return 2
    counts = write_sentences(Path(root), Path(sys.argv[1]))
    if not counts:
        print(f"Expected the folder of a GLUE task in {root}, got none.")
        return 2
    print(", ".join(f"{task} {count:,}" for task, count in counts.items()))
    print(f"{sum(counts.values()):,} sentences in {Path(sys.argv[1]) / 'sentences.txt'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
