"""Copies and transfer rows beside the gold rows, made once."""

from pathlib import Path

import datasets
import pytest
import torch

from distilbert_kd.augmentation import augmenting
from distilbert_kd.augmentation.augmenting import Augmented, augment
from distilbert_kd.augmentation.copies import Scheme, make_copies
from distilbert_kd.augmentation.embedding_neighbours import EmbeddingNeighbours
from distilbert_kd.augmentation.masked_lm import MaskedLM, Place
from distilbert_kd.data.task_data import TaskData
from distilbert_kd.errors import StorageError
from tests.pretraining.language_models import tiny_masked_lm
from tests.tiny import tiny_bert, tiny_tokenizer
from tests.tiny_runs import review_rows


ALL = {"masked_lm": 1.0, "embedding_neighbours": 1.0, "deletion": 1.0, "swap": 1.0, "span": 1.0}
REPLACING = {"masked_lm": 1.0, "embedding_neighbours": 1.0}


def scheme(num_copies=3, methods=ALL, fraction=0.5, num_candidates=8, seed=1):
    return Scheme(num_copies, methods, fraction, num_candidates, seed)


def texts(num_rows=24, seed=0) -> list[str]:
    return [row["text"] for row in review_rows(num_rows, seed)]


@pytest.fixture(scope="module")
def neighbours():
    return EmbeddingNeighbours(tiny_bert(), tiny_tokenizer())


@pytest.fixture(scope="module")
def masked_lm():
    return MaskedLM(tiny_masked_lm(), tiny_tokenizer(), torch.device("cpu"))


def copies_of(rows: list[str], neighbours, masked_lm, **changes) -> list[list[tuple[str, str]]]:
    made = make_copies(datasets.Dataset.from_dict({"text": rows}), scheme(**changes), neighbours, masked_lm)
    return [[(copy.method, copy.text) for copy in made if copy.source == row] for row in range(len(rows))]


class TestCopies:
    def test_a_rows_copies_are_the_same_whatever_stands_beside_it(self, neighbours, masked_lm):
        """Prevents rows that change, and a teacher that is asked anew, because one row was added or moved."""
        rows = texts()
        together = copies_of(rows, neighbours, masked_lm)
        assert copies_of(rows[::-1], neighbours, masked_lm) == together[::-1]
        assert copies_of(rows[5:8], neighbours, masked_lm) == together[5:8]
        assert {method for of_row in together for method, _ in of_row} == set(ALL)

    def test_another_seed_gives_others(self, neighbours, masked_lm):
        """Prevents seeds of a table that share their copies, and so understate the spread."""
        first, second = (copies_of(texts(), neighbours, masked_lm, seed=seed) for seed in (1, 2))
        assert sum(one != other for one, other in zip(first, second, strict=True)) > 20

    def test_more_copies_keep_those_that_were_there(self, neighbours, masked_lm):
        """Prevents a comparison of 1 and 3 copies in which all rows differ."""
        few, many = (copies_of(texts(), neighbours, masked_lm, num_copies=number) for number in (1, 3))
        assert [of_row[:1] for of_row in many] == few

    def test_a_replaced_word_is_one_of_the_candidates(self, neighbours, masked_lm):
        """Prevents words of another place, and a word of several pieces that one mask stands for."""
        words = ("zoo", "is", "good")
        near = neighbours.of(["zoo", "is", "good"], 8)
        for method in REPLACING:
            (made,) = copies_of([" ".join(words)], neighbours, masked_lm, methods={method: 1.0}, num_copies=40)
            for at, word in enumerate(words):
                fitting = set(near[word])
                if method == "masked_lm" and word != "zoo":
                    fitting = set(masked_lm.candidates([Place(words, at)], 8)[Place(words, at)])
                found = {text.split()[at] for _, text in made}
                assert found <= fitting | {word} and len(found) > 4, (method, word)

    def test_a_pair_has_one_text_altered(self, neighbours, masked_lm):
        """Prevents the second text from staying as it is for ever, and empty texts from being altered."""
        rows = datasets.Dataset.from_dict(
            {"text": ["a good film", ""], "text_pair": ["a dull plot", "the cast is bad"]}
        )
        made = make_copies(rows, scheme(num_copies=20), neighbours, masked_lm)
        columns = {row: {copy.column for copy in made if copy.source == row} for row in (0, 1)}
        assert columns == {0: {"text", "text_pair"}, 1: {"text_pair"}}

    def test_a_text_without_words_has_no_copy(self, neighbours, masked_lm):
        """Prevents a crash on an empty row, and a row of punctuation that is said to be altered."""
        made = copies_of(["", "  ", "!!"], neighbours, masked_lm, methods=REPLACING)
        assert made[:2] == [[], []] and {text for _, text in made[2]} == {"!!"}

    def test_each_method_is_drawn_by_its_weight(self, neighbours, masked_lm):
        """Prevents weights that are read and not used."""
        made = copies_of(texts(), neighbours, masked_lm, num_copies=40, methods={"swap": 3.0, "span": 1.0})
        methods = [method for of_row in made for method, _ in of_row]
        assert methods.count("swap") / len(methods) == pytest.approx(0.75, abs=0.05)


def task(rows=None, labels=None, evaluation=(), label_type="int64") -> TaskData:
    rows = texts() if rows is None else rows
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.Value(label_type)})
    labels = [number % 2 for number in range(len(rows))] if labels is None else labels
    train = datasets.Dataset.from_dict({"text": rows, "label": labels}, features=features)
    scored = datasets.Dataset.from_dict({"text": list(evaluation), "label": [0] * len(evaluation)}, features=features)
    names = None if label_type == "float32" else ("negative", "positive")
    return TaskData("tiny", names, "accuracy_f1", train, {"validation": scored}, {}, "here", ())


def augmented(folder: Path, data: TaskData, masked_lm=None, transfer=(), teacher=None, **changes) -> Augmented:
    extra = datasets.Dataset.from_dict({"text": list(transfer)}) if transfer else None
    teacher = teacher or tiny_bert()
    return augment(data, scheme(**changes), teacher, tiny_tokenizer(), masked_lm, extra, folder)


class TestRows:
    def test_deletion_alone_looks_up_no_neighbours(self, tmp_path, monkeypatch):
        """Prevents a walk over the whole vocabulary for nothing."""
        monkeypatch.setattr(augmenting, "EmbeddingNeighbours", None)
        assert augmented(tmp_path, task(), methods={"deletion": 1.0}).counts["augmented"] > 0

    def test_gold_rows_come_first_and_copies_have_their_rows_labels(self, tmp_path, masked_lm):
        """Prevents shifted labels, and gold rows that are marked as doubtful."""
        data = task()
        found = augmented(tmp_path, data, masked_lm)
        num_gold = len(data.train)
        assert found.train["text"][:num_gold] == data.train["text"][:]
        assert found.train["is_augmented"][:] == [False] * num_gold + [True] * len(found.added)
        assert found.train["label"][num_gold:] == [data.train[source]["label"] for source in found.added["source"][:]]
        assert found.counts["gold"] == num_gold and found.counts["augmented"] == len(found.added) > 30
        assert found.counts["augmented"] + found.counts["dropped"] == 3 * num_gold

    def test_no_added_row_is_equal_to_another_or_to_a_scored_one(self, tmp_path):
        """Prevents dev rows that were trained on, and rows that count twice; case and blanks make no other text."""
        data = task(["a good film"], evaluation=["film good A", "a  film good"])
        transfer = ["A GOOD  film", "a film good", "the plot", "the plot", " "]
        found = augmented(tmp_path, data, transfer=transfer, num_copies=50, methods={"swap": 1.0}, fraction=0.1)
        assert sorted(found.added["text"][:]) == ["good a film", "the plot"]
        assert found.counts == {"gold": 1, "augmented": 1, "transfer": 1, "dropped": 53}

    def test_a_transfer_row_has_no_label(self, tmp_path):
        """Prevents unlabelled texts from being taught as class 0."""
        for label_type in ("int64", "float32"):
            labels = None if label_type == "int64" else [0.5, 4.25]
            data = task(["a good film", "a dull plot"], labels, label_type=label_type)
            found = augmented(tmp_path, data, transfer=["the cast is bad"], num_copies=1)
            assert found.train.features["label"].dtype == label_type
            assert found.train[-1] == {"text": "the cast is bad", "label": -100, "is_augmented": True}
            assert found.train[2]["label"] in data.train["label"][:]

    def test_nothing_is_added_where_nothing_can_change(self, tmp_path):
        """Prevents a crash on texts without blanks, and empty columns of another type."""
        found = augmented(tmp_path, task(["好电影", "坏"]), methods=REPLACING)
        assert found.train["text"][:] == ["好电影", "坏"] and found.counts["dropped"] == 6

    def test_without_a_masked_language_model_neighbours_take_its_place(self, tmp_path):
        """Prevents a share of the copies that is silently not made, or made by chance."""
        found = augmented(tmp_path, task(), methods={"masked_lm": 1.0, "swap": 1.0})
        assert set(found.added["method"][:]) == {"embedding_neighbours", "swap"}


class TestCache:
    def test_rows_are_made_once(self, tmp_path, masked_lm, monkeypatch):
        """Prevents a masked language model that is asked anew by each run of a table."""
        first = augmented(tmp_path, task(), masked_lm)

        def refuse(*args):
            pytest.fail("made again")

        monkeypatch.setattr(augmenting, "make_copies", refuse)
        assert augmented(tmp_path, task(), masked_lm).train.to_dict() == first.train.to_dict()
        assert augmented(tmp_path, task(), masked_lm, methods=dict(reversed(ALL.items()))).added[:] == first.added[:]

    def test_what_the_rows_depend_on_gives_others(self, tmp_path):
        """Prevents rows of other settings, of another teacher or of a changed text from being taken for these."""
        augmented(tmp_path, task())
        others = [
            {"seed": 2},
            {"fraction": 0.4},
            {"num_candidates": 7},
            {"num_copies": 2},
            {"methods": {"swap": 1.0}},
            {"transfer": ["the plot"]},
            {"teacher": tiny_bert(seed=1)},
            {"masked_lm": MaskedLM(tiny_masked_lm(), tiny_tokenizer(), torch.device("cpu"))},
            {"masked_lm": MaskedLM(tiny_masked_lm(seed=1), tiny_tokenizer(), torch.device("cpu"))},
            {"masked_lm": MaskedLM(tiny_masked_lm(num_attention_heads=4), tiny_tokenizer(), torch.device("cpu"))},
        ]
        for number, other in enumerate(others, start=2):
            augmented(tmp_path, task(), **other)
            assert len(list(tmp_path.iterdir())) == number, other
        augmented(tmp_path, task([*texts()[:-1], "a new text"]))
        augmented(tmp_path, task(evaluation=["a new text"]))
        assert len(list(tmp_path.iterdir())) == len(others) + 3

    def test_a_damaged_one_is_made_anew(self, tmp_path, caplog):
        """Prevents half a file from being trained on."""
        first = augmented(tmp_path, task()).train.to_dict()
        (place,) = tmp_path.iterdir()
        file = next(place.glob("data-*.arrow"))
        file.write_bytes(file.read_bytes()[:-100])
        assert augmented(tmp_path, task()).train.to_dict() == first
        assert "is damaged; it is set aside" in caplog.text

    def test_a_folder_that_cant_be_written(self, tmp_path):
        """Prevents a traceback for a full or closed disk."""
        (tmp_path / "cache").write_text("in the way")
        with pytest.raises(StorageError, match=r"augmented rows in .*cache.*teacher\.cache_dir"):
            augmented(tmp_path / "cache", task())
