"""What the page says: probabilities, agreement, order of classes; with models and without a server."""

import math

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distilbert_kd.demo_app.local import page_of_run
from distilbert_kd.demo_app.page import Answer, Classifier, answer_of, compare, page_of_space, probabilities
from distilbert_kd.errors import StorageError
from tests.demo_app.runs_to_try import SCRIPT, name_teacher, run_to_try, save_model


TEXT = "a funny film"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_to_try(tmp_path_factory.mktemp("page") / "run")


def answer(*logits: float) -> Answer:
    return Answer(torch.tensor(logits), ms=1.0, is_cut=False)


class TestNumbers:
    def test_probabilities_are_the_softmax_at_t(self):
        """A slider that multiplies in place of dividing would sharpen what it should soften."""
        logits = [2.0, 0.0, -1.0]
        for temperature in (1.0, 2.5, 10.0):
            weights = [math.exp(each / temperature) for each in logits]
            expected = torch.tensor([each / sum(weights) for each in weights])
            torch.testing.assert_close(probabilities(torch.tensor(logits), temperature), expected)

    def test_agreement_and_distance(self):
        """The sentence is what a visitor believes; KL taken the other way round is another number."""
        student, teacher = answer(1.0, 0.0), answer(0.0, 3.0)
        lines = compare(student, teacher, ["no", "yes"], temperature=2.0)
        assert lines[0] == "They differ: student no, teacher yes."
        p = [1 / (1 + math.exp(1.5)), 1 / (1 + math.exp(-1.5))]
        q = [1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(0.5))]
        entropy = -sum(each * math.log(each) for each in p)
        kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        assert f"{entropy:.3f} nats of entropy" in lines[1] and f"{kl:.3f} nats (KL)" in lines[1]
        assert compare(teacher, teacher, ["no", "yes"], 1.0)[0] == "They agree: yes."

    def test_numbers_have_a_difference_and_no_temperature(self):
        """The softmax of one number is 1, whatever a regression says."""
        assert compare(answer(2.5), answer(4.0), None, 3.0) == ["Student and teacher are 1.500 apart."]

    def test_answer_is_the_models(self, run):
        """Other inputs than the model's own, such as no token types, give other probabilities without an error."""
        model = AutoModelForSequenceClassification.from_pretrained(run / "student").eval()
        tokenizer = AutoTokenizer.from_pretrained(run / "student")
        with torch.no_grad():
            expected = model(**tokenizer("a film", "a plot", return_tensors="pt")).logits[0]
        got = answer_of(Classifier(model, tokenizer), ["a film", "a plot"], 16)
        torch.testing.assert_close(got.logits, expected)
        assert got.ms > 0 and not got.is_cut
        turned = answer_of(Classifier(model, tokenizer, order=(1, 0)), ["a film", "a plot"], 16)
        torch.testing.assert_close(turned.logits, expected.flip(0))

    def test_long_text_is_cut_as_in_training(self, run):
        """More tokens than the model has positions for end in an index error."""
        page = page_of_run(run)
        assert answer_of(page.student, ["film " * 200], page.max_length).is_cut


class TestRunFolder:
    def test_both_models_and_the_rows_where_they_part(self, run):
        """The folder alone is enough: neither the data nor the base model of the recipe is here."""
        page = page_of_run(run)
        assert page.labels == ("negative", "positive") and page.max_length == 16 and not page.is_pair
        assert page.teacher.model.config.num_hidden_layers == 4
        assert page.row_headers == ["Label", "Student", "Teacher"]
        assert all(row[0].startswith(SCRIPT) for row in page.rows)
        said = [[cell.rsplit(" ", 2)[0] for cell in row[-2:]] for row in page.rows]
        parts = [student != teacher for student, teacher in said]
        assert parts[0] and parts == sorted(parts, reverse=True)  # those with another answer come first

    def test_deleted_teacher_leaves_the_student(self, tmp_path, caplog):
        """A run folder sent on without its large teacher is still worth trying; the page says what it lacks."""
        run = run_to_try(tmp_path / "run", has_teacher=False)
        page = page_of_run(run)
        assert page.teacher is None
        assert "teacher.model=FOLDER teacher.finetune=null" in page.about[1] and "student alone" in caplog.text

    def test_teacher_from_elsewhere_must_be_the_runs(self, tmp_path):
        """Beside another teacher every disagreement would be blamed on the student."""
        run = run_to_try(tmp_path / "run", has_teacher=False)
        elsewhere = save_model(tmp_path / "elsewhere", ("positive", "negative"), 4)
        name_teacher(run, model=str(elsewhere))
        page = page_of_run(run)
        assert page.teacher is None and "other weights" in page.about[1]

    def test_number_and_pair(self, tmp_path):
        """STS-B gives a score for two texts: no classes, no softmax, two boxes."""
        page = page_of_run(run_to_try(tmp_path / "run", labels=None, text_pair="other"))
        assert page.labels is None and page.is_pair and "T =" not in page.about[0]
        apart = [abs(float(row[-1]) - float(row[-2])) for row in page.rows]
        assert apart[0] > apart[-1] and apart == pytest.approx(sorted(apart, reverse=True), abs=0.011)  # two decimals

    def test_without_scored_rows(self, tmp_path):
        """Runs that were made before the rows were kept can be tried; the page says how to get rows."""
        run = run_to_try(tmp_path / "run")
        (run / "scored/validation.parquet").unlink()
        page = page_of_run(run)
        assert page.rows == [] and "distilbert-kd evaluate" in page.about[-1]

    def test_no_run(self, tmp_path):
        """A typing error in the path ends in a message before a server starts."""
        with pytest.raises(StorageError, match="nothing"):
            page_of_run(tmp_path / "nonesuch")


class TestSpace:
    def settings(self, student, teacher, labels=None):
        return {
            "title": "tiny",
            "about": [],
            "student": {"model": str(student), "revision": None},
            "teacher": teacher and {"model": str(teacher), "revision": None, "labels": labels},
            "max_length": 16,
            "is_pair": False,
        }

    @pytest.mark.parametrize(
        ("names", "given"),
        [(("Positive", "negative"), None), (("LABEL_0", "LABEL_1"), ["positive", "negative"])],
    )
    def test_teachers_classes_in_another_order(self, run, tmp_path, names, given):
        """Matched by place and not by name, a teacher of the Hub would seem to say the opposite."""
        teacher = save_model(tmp_path / "teacher", names, 4)
        page = page_of_space(self.settings(run / "student", teacher, given))
        own = AutoModelForSequenceClassification.from_pretrained(teacher).eval()
        with torch.no_grad():
            expected = own(**AutoTokenizer.from_pretrained(teacher)(TEXT, return_tensors="pt")).logits[0]
        torch.testing.assert_close(answer_of(page.teacher, [TEXT], 16).logits, expected.flip(0))

    def test_teacher_of_other_classes_is_left_out(self, run, tmp_path):
        """Bars under wrong names are worse than none, and an error would take the whole Space down."""
        teacher = save_model(tmp_path / "teacher", ("LABEL_0", "LABEL_1"), 4)
        page = page_of_space(self.settings(run / "student", teacher))
        assert page.teacher is None and "LABEL_0, LABEL_1" in page.about[0]
        page = page_of_space(self.settings(run / "student", tmp_path / "nonesuch"))
        assert page.teacher is None and "nonesuch" in page.about[0]

    def test_student_alone(self, run):
        """Most teachers are fine-tuned in the run and are not published."""
        page = page_of_space(self.settings(run / "student", None))
        assert page.teacher is None and page.about == [] and page.labels == ["negative", "positive"]
