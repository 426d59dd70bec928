"""The original GLUE files, row for row as far as they are there: needs GLUE_DIR."""

import pytest

from distilbert_kd.data.glue import glue_splits_from_folder
from distilbert_kd.data.labels import encode_classes, encode_numbers
from distilbert_kd.data.loading import load_rows_to_predict
from distilbert_kd.data.tasks import TASKS, TRAINABLE_TASKS


# Rows with each label, in the order of the class numbers, as counted when the files were gathered.
LABEL_COUNTS = {
    ("cola", "train.tsv"): (2528, 6023),
    ("cola", "dev.tsv"): (322, 721),
    ("sst2", "train.tsv"): (29780, 37569),
    ("sst2", "dev.tsv"): (428, 444),
    ("mrpc", "train.tsv"): (1194, 2474),
    ("mrpc", "dev.tsv"): (129, 279),
    ("rte", "train.tsv"): (1249, 1241),
    ("rte", "dev.tsv"): (146, 131),
    ("wnli", "train.tsv"): (323, 312),
    ("wnli", "dev.tsv"): (40, 31),
    ("qnli", "dev.tsv"): (2702, 2761),
    ("mnli", "dev_matched.tsv"): (3479, 3123, 3213),
}


@pytest.mark.parametrize("name", TRAINABLE_TASKS)
def test_every_row_is_read(glue_dir, name):
    """Prevents rows lost or merged by a reader, unseen, and class numbers that are swapped."""
    task = TASKS[name]
    if not (glue_dir / task.folders[0]).is_dir():
        pytest.skip(f"GLUE_DIR has no {task.folders[0]}")
    official = {split.name: split for split in task.splits}
    splits, _ = glue_splits_from_folder(task, glue_dir)
    assert splits
    for split in splits:
        file = split.table.name.rsplit("/", 1)[-1]
        if split.name in official and file == official[split.name].file:
            assert len(split.table) == official[split.name].num_rows
            assert split.notes == ()
        if split.label is None:
            assert [int(cell) for cell in split.table.columns[split.index]] == list(range(len(split.table)))
        elif split.label_words is None:
            assert 0 <= min(encode_numbers(split.table, split.label))
            assert max(encode_numbers(split.table, split.label)) <= 5
        else:
            labels = encode_classes(split.table, split.label, split.label_words)
            counts = tuple(labels.count(number) for number in range(len(split.label_words)))
            assert counts == LABEL_COUNTS.get((name, file), counts)


@pytest.mark.parametrize("name", TRAINABLE_TASKS)
def test_columns_are_the_original_ones(glue_dir, name):
    """Prevents a record of the file layout that is not that of the files."""
    task = TASKS[name]
    for split in task.splits:
        path = glue_dir / task.folders[0] / split.file
        if not path.is_file():
            continue
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            first = file.readline().rstrip("\n").split("\t")
        assert len(first) == len(split.columns)
        assert not split.has_header or tuple(first) == split.columns


@pytest.mark.parametrize(("name", "file", "num_rows"), [("cola", "dev.tsv", 1043), ("mrpc", "test.tsv", 1725)])
def test_files_to_predict(glue_dir, name, file, num_rows):
    """Prevents predictions for a header line, or for fewer rows than the file has."""
    path = glue_dir / TASKS[name].folders[0] / file
    if not path.is_file():
        pytest.skip(f"GLUE_DIR has no {name} {file}")
    rows = load_rows_to_predict(path, "text", None, name)
    assert len(rows) == num_rows
    assert ("index" in rows.column_names) == (file == "test.tsv")
