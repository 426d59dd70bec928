"""Loading: where the rows of a task come from, which splits are scored, and what is said about them."""

import hashlib

import datasets
import pytest

from distilbert_kd.data.loading import load_rows_to_predict, load_task
from distilbert_kd.data.task_data import fingerprint
from distilbert_kd.data.tasks import TASKS
from distilbert_kd.errors import DataError
from distilbert_kd.recipe import Data


@pytest.fixture(autouse=True)
def _no_glue_dir(monkeypatch):
    monkeypatch.delenv("GLUE_DIR", raising=False)


def own(tmp_path, **values):
    """A `data` section for own files; contents given as text become files."""
    for split in ("train", "validation", "test"):
        content = values.get(split)
        if content is not None:
            path = tmp_path / f"{split}.csv"
            path.write_text(content)
            values[split] = str(path)
    return Data(**{"text": "text", "label": "label", **values})


def glue_rows(task, split):
    """Three rows with the cells of each original column; texts hold what readers stumble over."""
    num = len(task.file_labels) if task.file_labels else 3
    for row in range(3):
        cells = dict.fromkeys(split.columns, "n/a")
        cells[task.text] = f'null "{split.name} {row} '
        if task.text_pair:
            cells[task.text_pair] = f"{row} \u2028NA"
        if split.role == "test":
            cells[task.index] = str(row)
        else:
            cells[task.label] = task.file_labels[row % num] if task.file_labels else ("3.800", "0.000", "5.000")[row]
        yield [cells[column] for column in split.columns]


def write_glue(root, task, files=None):
    folder = root / task.folders[0]
    folder.mkdir(parents=True, exist_ok=True)
    for split in task.splits:
        lines = [split.columns] if split.has_header else []
        lines += glue_rows(task, split)
        name = (files or {}).get(split.file, split.file)
        if name is not None:
            (folder / name).write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8-sig")


def hub_split(task, split):
    """The same rows as the Hub holds them."""
    rows = [dict(zip(split.columns, row, strict=True)) for row in glue_rows(task, split)]
    columns = {task.hub_text: [row[task.text] for row in rows]}
    features = {task.hub_text: datasets.Value("string")}
    if task.text_pair:
        columns[task.hub_text_pair] = [row[task.text_pair] for row in rows]
        features[task.hub_text_pair] = datasets.Value("string")
    is_test = split.role == "test"
    if task.label_names is None:
        columns["label"] = [-1.0 if is_test else float(row[task.label]) for row in rows]
        features["label"] = datasets.Value("float32")
    else:
        columns["label"] = [-1 if is_test else task.file_labels.index(row[task.label]) for row in rows]
        features["label"] = datasets.ClassLabel(names=list(task.label_names))
    columns["idx"] = list(range(len(rows)))
    features["idx"] = datasets.Value("int32")
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


@pytest.fixture
def hub(monkeypatch):
    """The Hub's GLUE in memory; the list says what was asked for."""
    asked = []

    def load_dataset(repository, config, *, split, revision):
        asked.append((repository, config, split, revision))
        task = TASKS[config]
        found = next(known for known in task.splits if split == ("test" if config == "ax" else known.name))
        return hub_split(task, found)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


class TestGlue:
    @pytest.mark.parametrize("name", ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"])
    def test_hub_and_folder_are_equal(self, tmp_path, hub, name):
        """Prevents results that depend on where the rows came from."""
        write_glue(tmp_path, TASKS[name])
        if name == "mnli":
            write_glue(tmp_path, TASKS["ax"])
        local = load_task(Data(task=name, path=str(tmp_path)), "any")
        assert hub == []
        remote = load_task(Data(task=name, revision="abc"), "any")
        assert set(hub) >= {("nyu-mll/glue", name, "train", "abc")}
        assert (local.name, local.label_names, local.metric) == (name, TASKS[name].label_names, name)
        assert (remote.name, remote.label_names, remote.metric) == (local.name, local.label_names, local.metric)
        for mine, other in ((local.evaluation, remote.evaluation), (local.test, remote.test)):
            assert list(mine) == list(other)
            for split in mine:
                assert mine[split].features == other[split].features
                assert mine[split].to_dict() == other[split].to_dict()
        assert local.train.features == remote.train.features
        assert fingerprint(local.train) == fingerprint(remote.train)
        assert local.train["text"][0] == 'null "train 0 '
        assert "revision abc" in remote.source
        assert str(tmp_path) in local.source

    def test_labels_and_index(self, tmp_path):
        """Prevents class numbers in another order than the Hub's, and test rows without their number."""
        write_glue(tmp_path, TASKS["rte"])
        rte = load_task(Data(task="rte", path=str(tmp_path)), "any")
        assert rte.train["label"][:] == [0, 1, 0]
        assert list(rte.evaluation) == ["validation"]
        assert rte.test["test"].column_names == ["text", "text_pair", "index"]
        assert rte.test["test"]["index"][:] == [0, 1, 2]

    def test_mnli_has_five_more_splits(self, tmp_path):
        """Prevents MNLI's two dev sets from changing places, and AX from being forgotten."""
        write_glue(tmp_path, TASKS["mnli"])
        diagnostic = tmp_path / "diagnostic"
        diagnostic.mkdir()
        (diagnostic / "diagnostic.tsv").write_text("index\tsentence1\tsentence2\n0\ta\tb\n")
        mnli = load_task(Data(task="mnli", path=str(tmp_path)), "any")
        assert list(mnli.evaluation) == ["validation_matched", "validation_mismatched"]
        assert list(mnli.test) == ["test_matched", "test_mismatched", "ax"]
        assert mnli.test["ax"].to_dict() == {"text": ["a"], "text_pair": ["b"], "index": [0]}

    def test_subsets_stand_in_and_are_named(self, tmp_path):
        """Prevents a score on part of the rows from being taken for GLUE's."""
        write_glue(
            tmp_path, TASKS["rte"], {"train.tsv": "train_subset.tsv", "dev.tsv": "dev_subset.tsv", "test.tsv": None}
        )
        rte = load_task(Data(task="rte", path=str(tmp_path)), "any")
        assert rte.test == {}
        assert rte.notes == (
            "RTE/train_subset.tsv: 3 rows, not the official split of 2490",
            "RTE/dev_subset.tsv: 3 rows, not the official split of 277",
        )

    def test_broken_lines_of_qqp_are_counted(self, tmp_path):
        """Prevents the original file, which has a few, from being refused; another task's is refused."""
        for name in ("qqp", "rte"):
            write_glue(tmp_path, TASKS[name])
            with (tmp_path / TASKS[name].folders[0] / "train.tsv").open("a") as file:
                file.write('"\tHalf a question?\t0\n')
        qqp = load_task(Data(task="qqp", path=str(tmp_path)), "any")
        assert len(qqp.train) == 3
        assert "QQP/train.tsv: 1 lines with a wrong number of columns left out" in qqp.notes
        with pytest.raises(DataError, match=r"RTE/train\.tsv: expected 4 columns .* got 3 at line 5"):
            load_task(Data(task="rte", path=str(tmp_path)), "any")

    def test_glue_dir_and_the_tasks_own_folder(self, tmp_path, monkeypatch):
        """Prevents a download where the files are at hand, and GLUE_DIR from winning over the recipe."""
        write_glue(tmp_path / "a", TASKS["wnli"])
        write_glue(tmp_path / "b", TASKS["wnli"])
        monkeypatch.setenv("GLUE_DIR", str(tmp_path / "a"))
        assert load_task(Data(task="wnli"), "any").source == f"GLUE files in {tmp_path / 'a' / 'WNLI'}"
        path = str(tmp_path / "b" / "WNLI")
        assert load_task(Data(task="wnli", path=path), "any").source == f"GLUE files in {path}"

    @pytest.mark.parametrize(("file", "words"), [("train.tsv", "train_subset"), ("dev.tsv", "dev_subset")])
    def test_missing_files(self, tmp_path, file, words):
        """Prevents a run that finds out after the training that it can't be scored."""
        write_glue(tmp_path, TASKS["cola"], {file: None})
        with pytest.raises(DataError, match=rf"expected {file} \(or {words}\.tsv\); got .*test\.tsv"):
            load_task(Data(task="cola", path=str(tmp_path)), "any")

    def test_missing_folder_says_what_is_there(self, tmp_path):
        """Prevents a search for the right folder by trying."""
        (tmp_path / "glue_data").mkdir()
        with pytest.raises(DataError, match="expected a folder that holds STS-B; got glue_data"):
            load_task(Data(task="stsb", path=str(tmp_path)), "any")

    def test_bad_label_names_the_line(self, tmp_path):
        """Prevents class numbers in a file of words from being taken in the wrong order."""
        write_glue(tmp_path, TASKS["rte"])
        with (tmp_path / "RTE" / "dev.tsv").open("a") as file:
            file.write("3\ta\tb\t1\n")
        with pytest.raises(DataError, match=r"dev\.tsv: expected one of .*entailment.* got '1' at line 5\."):
            load_task(Data(task="rte", path=str(tmp_path)), "any")

    def test_ax_has_nothing_to_train_on(self):
        """Prevents a run that ends in a missing file where the task itself is the mistake."""
        with pytest.raises(DataError, match="'ax', which has none. Run the task mnli"):
            load_task(Data.model_construct(task="ax", path=None), "any")

    def test_offline_names_the_ways_out(self):
        """Prevents a traceback of the Hub's client for someone who has the files."""
        with pytest.raises(DataError, match=r"nyu-mll/glue \(config rte.*GLUE_DIR or data\.path"):
            load_task(Data(task="rte"), "any")


class TestOwnData:
    def test_classes(self, tmp_path):
        """Prevents class numbers that depend on the order of the rows."""
        data = own(
            tmp_path, train="text,label\nx,pos\nnull,neg\n,pos\n", validation="label,text\nneg,y\n", test="text\nz\n"
        )
        task = load_task(data, "mine")
        assert (task.name, task.label_names, task.metric) == ("mine", ("neg", "pos"), "accuracy_f1")
        assert task.train.to_dict() == {"text": ["x", "null", ""], "label": [1, 0, 1]}
        assert task.train.features["label"] == datasets.Value("int64")
        assert task.evaluation["validation"].to_dict() == {"text": ["y"], "label": [0]}
        assert task.test["test"].to_dict() == {"text": ["z"]}
        assert task.notes == ("train: 1 of 3 rows have an empty text",)

    @pytest.mark.parametrize(
        ("test", "is_scored"),
        [
            ("text,label\nz,pos\n", True),
            ("text,label\nz,-1\n", False),
            ("text,label\nz,\n", False),
            ("text\nz\n", False),
        ],
    )
    def test_test_split(self, tmp_path, test, is_scored):
        """Prevents an unlabelled test split from being scored as all wrong, and a labelled one from being left out."""
        rows = "text,label\nx,pos\ny,neg\n"
        task = load_task(own(tmp_path, train=rows, validation=rows, test=test), "mine")
        assert list(task.evaluation) == ["validation", "test"][: 1 + is_scored]
        assert list(task.test) == [] if is_scored else ["test"]

    def test_partly_labelled_test_is_refused(self, tmp_path):
        """Prevents a score on the rows that happen to have labels."""
        rows = "text,label\nx,pos\ny,neg\n"
        with pytest.raises(DataError, match=r"test\.csv: expected a label .* got '' at line 3"):
            load_task(own(tmp_path, train=rows, validation=rows, test="text,label\nx,pos\nz,\n"), "mine")

    def test_numbers(self, tmp_path):
        """Prevents scores from becoming classes, and pairs from losing their second text."""
        rows = "text,other,label\na,b,0.5\nc,d,4\n"
        data = own(tmp_path, train=rows, validation=rows, text_pair="other", problem_type="regression")
        task = load_task(data, "mine")
        assert (task.label_names, task.metric) == (None, "pearson_spearman")
        assert task.train.to_dict() == {"text": ["a", "c"], "text_pair": ["b", "d"], "label": [0.5, 4.0]}
        assert task.train.features["label"] == datasets.Value("float32")

    def test_rows_without_a_label(self, tmp_path):
        """Prevents unlabelled rows from being trained on by accident, or scored."""
        rows, gap = "text,label\nx,a\ny,b\n", "text,label\nx,a\nw,\ny,b\n"
        with pytest.raises(DataError, match=r"train\.csv: expected a label .* got '' at line 3"):
            load_task(own(tmp_path, train=gap, validation=rows), "mine")
        task = load_task(own(tmp_path, train=gap, validation=rows, allow_unlabelled_rows=True), "mine")
        assert task.train["label"][:] == [0, -100, 1]
        assert task.notes == ("train: 1 of 3 rows have no label",)
        with pytest.raises(DataError, match=r"validation\.csv: expected a label"):
            load_task(own(tmp_path, train=rows, validation=gap, allow_unlabelled_rows=True), "mine")

    def test_given_labels_and_their_places(self, tmp_path):
        """Prevents another order than the recipe's, and a class that only validation has."""
        rows = "text,label\nx,1\ny,negative\n"
        task = load_task(own(tmp_path, train=rows, validation=rows, labels=["positive", "negative", "mixed"]), "mine")
        assert task.label_names == ("positive", "negative", "mixed")
        assert task.train["label"][:] == [1, 1]
        with pytest.raises(DataError, match=r"validation\.csv: expected one of the labels a, b .* got 'c' at line 2"):
            load_task(own(tmp_path, train="text,label\nx,a\ny,b\n", validation="text,label\nx,c\n"), "mine")

    def test_some_rows_only(self, tmp_path):
        """Prevents one class alone in a short run on a file that is sorted by label, and one that doesn't say so."""
        rows = "text,label\n" + "".join(f"t{i},{'ab'[i // 50]}\n" for i in range(100))
        first, again = (
            load_task(own(tmp_path, train=rows, validation=rows, max_train_rows=20), "mine") for _ in range(2)
        )
        assert first.train["text"][:] == again.train["text"][:]
        assert 5 <= sum(first.train["label"][:]) <= 15
        assert first.label_names == ("a", "b")
        assert len(first.evaluation["validation"]) == 100
        assert first.notes == ("train: 20 of 100 rows at random (data.max_train_rows)",)

    def test_max_validation_rows(self, tmp_path):
        """Prevents a score on a sorted file's first rows, other rows for each seed, and a test set that is drawn."""
        rows = "text,label\n" + "".join(f"text {i},{'ab'[i // 50]}\n" for i in range(100))
        first, again = (
            load_task(own(tmp_path, train=rows, validation=rows, test=rows, max_validation_rows=20), "mine")
            for _ in range(2)
        )
        assert fingerprint(first.evaluation["validation"]) == fingerprint(again.evaluation["validation"])
        assert len(first.evaluation["validation"]) == 20
        assert 5 <= sum(first.evaluation["validation"]["label"][:]) <= 15
        assert len(first.train) == len(first.evaluation["test"]) == 100
        assert first.drawn_from == {"validation": 100}
        assert first.notes == ("validation: 20 of 100 rows at random (data.max_validation_rows)",)
        assert load_task(own(tmp_path, train=rows, validation=rows, max_validation_rows=100), "mine").drawn_from == {}

    def test_max_validation_rows_leaves_a_submission_whole(self, tmp_path):
        """Prevents a submission.zip that GLUE's server refuses because rows are missing; both of MNLI's are drawn."""
        write_glue(tmp_path, TASKS["mnli"])
        data = load_task(Data(task="mnli", path=str(tmp_path), max_validation_rows=2), "mnli")
        assert {split: len(rows) for split, rows in data.evaluation.items()} == dict.fromkeys(data.evaluation, 2)
        assert data.drawn_from == dict.fromkeys(data.evaluation, 3) and len(data.evaluation) == 2
        whole = load_task(Data(task="mnli", path=str(tmp_path)), "mnli")
        assert data.test.keys() == whole.test.keys() != set()
        for split, rows in whole.test.items():
            assert data.test[split]["index"][:] == rows["index"][:]

    def test_missing_label_column(self, tmp_path):
        """Prevents validation from being taken for unlabelled because of a slip in a name."""
        rows = "text,label\nx,a\ny,b\n"
        with pytest.raises(DataError, match=r"validation\.csv: expected the columns text, label; got 'text', 'lable'"):
            load_task(own(tmp_path, train=rows, validation="text,lable\nx,a\n"), "mine")

    def test_text_that_is_none(self, tmp_path):
        """Prevents `null` of JSON, a number, or half a character from reaching the tokenizer."""
        for cell in ("null", "5", '"\\ud800"'):
            path = tmp_path / "train.jsonl"
            path.write_text('{"text": "x", "label": "a"}\n{"text": ' + cell + ', "label": "b"}\n')
            with pytest.raises(DataError, match=r"in the column 'text'; got .* at line 2\."):
                load_task(Data(train=str(path), validation=str(path), text="text", label="label"), "mine")

    def test_hub_dataset(self, monkeypatch):
        """Prevents class names of a Hub data set from getting lost, and its unlabelled test rows from being scored."""
        features = datasets.Features({"s": datasets.Value("string"), "y": datasets.ClassLabel(names=["no", "yes"])})
        rows = {"train": [1, 0], "dev": [0, 1], "test": [-1, -1]}

        def load_dataset(repository, config, *, split, revision):
            assert (repository, config, revision) == ("some/rows", "small", "v1")
            return datasets.Dataset.from_dict({"s": ["a", "b"], "y": rows[split]}, features=features)

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        data = Data(
            dataset="some/rows",
            dataset_config="small",
            revision="v1",
            validation="dev",
            test="test",
            text="s",
            label="y",
        )
        task = load_task(data, "mine")
        assert task.label_names == ("no", "yes")
        assert task.train.to_dict() == {"text": ["a", "b"], "label": [1, 0]}
        assert (list(task.evaluation), list(task.test)) == (["validation"], ["test"])
        assert task.source == "some/rows on the Hub, config small, revision v1: train train, validation dev, test test"


class TestFingerprint:
    def rows(self, **columns):
        return datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1], **columns})

    def test_counts_rows_and_their_order(self):
        """Prevents a run from being resumed on other rows."""
        first = fingerprint(self.rows())
        assert first == fingerprint(self.rows(index=[5, 6]))
        others = [
            self.rows(text=["a", "c"]),
            self.rows(label=[0, 0]),
            self.rows(text_pair=["", ""]),
            self.rows().select([1, 0]),
            self.rows().select([0]),
        ]
        assert len({first, *map(fingerprint, others)}) == 6

    def test_stays_the_same_across_versions(self):
        """Prevents every old run from looking changed after an update."""
        content = b'["text", "label"]["a", 0]\n["b", 1]\n'
        assert fingerprint(self.rows()) == hashlib.sha256(content).hexdigest()


class TestRowsToPredict:
    def test_own_file(self, tmp_path):
        """Prevents a lost row or column on the way to the predictions."""
        path = tmp_path / "rows.tsv"
        path.write_text('a\tb\n"x\tnull\ny\t\n')
        assert load_rows_to_predict(path, "a", "b").to_dict() == {"text": ['"x', "y"], "text_pair": ["null", ""]}

    def test_glue_files(self, tmp_path):
        """Prevents a submission whose rows have no number, and CoLA's first sentence from being a header."""
        write_glue(tmp_path, TASKS["cola"])
        test = load_rows_to_predict(tmp_path / "CoLA" / "test.tsv", "text", None, "cola")
        assert test.column_names == ["text", "index"]
        dev = load_rows_to_predict(tmp_path / "CoLA" / "dev.tsv", "text", None, "cola")
        assert dev["text"][:] == [f'null "validation {row} ' for row in range(3)]

    def test_own_file_for_a_glue_model(self, tmp_path):
        """Prevents a GLUE model from taking nothing but the benchmark's own files."""
        path = tmp_path / "rows.jsonl"
        path.write_text('{"text": "x"}\n')
        assert load_rows_to_predict(path, "text", None, "sst2").to_dict() == {"text": ["x"]}
