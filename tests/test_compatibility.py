"""Do teacher and student speak of the same things? Each refusal says what was expected, what came and what to do."""

import copy
import json

import pytest
import torch
from tokenizers import Tokenizer
from transformers import BertTokenizer, DistilBertTokenizer, PreTrainedTokenizerFast
from transformers.tokenization_python import PythonBackend

from distilbert_kd import build_student
from distilbert_kd.compatibility import (
    check_same_tokenizer,
    check_teacher,
    label_names,
    output_layer,
    output_order,
    tokenizer_identity,
)
from distilbert_kd.errors import TeacherError
from tests.tiny import VOCABULARY, tiny_bert, tiny_tokenizer


class TestTeacher:
    def test_a_teacher_and_its_student_fit(self):
        """Prevents checks that refuse what build_student makes."""
        teacher = tiny_bert(4)
        check_teacher(build_student(teacher), teacher)

    @pytest.mark.parametrize(("num_student", "num_teacher"), [(2, 1), (2, 3), (1, 2)])
    def test_another_number_of_outputs_is_refused(self, num_student, num_teacher):
        """Prevents a (B, 1) teacher that broadcasts over a (B, 2) student to a plausible loss."""
        message = f"student's {num_student} outputs, got BertForSequenceClassification with {num_teacher}. Take a"
        with pytest.raises(TeacherError, match=message):
            check_teacher(tiny_bert(2, num_labels=num_student), tiny_bert(4, num_labels=num_teacher))

    @pytest.mark.parametrize("is_student", [True, False])
    def test_several_labels_at_once_are_refused(self, is_student):
        """Prevents a softmax over classes that do not exclude each other."""
        models = [tiny_bert(2), tiny_bert(4)]
        models[0 if is_student else 1].config.problem_type = "multi_label_classification"
        with pytest.raises(TeacherError, match="one label or one number for each row, got Bert.*multi_label_classif"):
            check_teacher(*models)

    def test_a_teacher_of_fewer_tokens_is_refused(self):
        """Prevents an index error in the teacher's embeddings at the first rare word, hours into training."""
        with pytest.raises(TeacherError, match="student's 200 tokens, got .* with 187. Take teacher and student with"):
            check_teacher(tiny_bert(2, vocab_size=200), tiny_bert(4, vocab_size=187))

    def test_embeddings_padded_for_speed_are_allowed(self):
        """Prevents the refusal of a teacher whose embeddings were rounded up to a multiple of 64."""
        check_teacher(tiny_bert(2, vocab_size=187), tiny_bert(4, vocab_size=192))

    def test_shared_weights_are_refused(self):
        """Prevents a student made by hand from the teacher's own layers, which freezes with it."""
        teacher, student = tiny_bert(4), tiny_bert(2)
        student.bert.embeddings = teacher.bert.embeddings
        with pytest.raises(TeacherError, match="weights of their own, got two that share some.* build_student"):
            check_teacher(student, teacher)
        with pytest.raises(TeacherError, match="weights of their own"):
            check_teacher(teacher, teacher)

    def test_a_head_that_no_checkpoint_held_is_refused(self):
        """Prevents distilling the noise of a head that from_pretrained made up, with a warning that scrolls by."""
        teacher = tiny_bert(4)
        teacher.config.architectures = ["BertForMaskedLM"]
        message = (
            "fine-tuned teacher, got BertForSequenceClassification from a checkpoint of BertForMaskedLM: .* Fine-t"
        )
        with pytest.raises(TeacherError, match=message):
            check_teacher(tiny_bert(2), teacher)

    def test_a_head_that_was_trained_here_is_accepted(self):
        """Prevents the refusal of a teacher that was fine-tuned in this process from a base checkpoint."""
        teacher = tiny_bert(4)
        teacher.config.architectures = ["BertForMaskedLM"]
        with torch.no_grad():
            teacher.classifier.bias += 0.01
        check_teacher(tiny_bert(2), teacher)

    def test_the_output_layer_is_the_one_that_gives_the_logits(self):
        """Prevents an inner layer, which happens to be as wide as there are labels, from being taken for the head."""
        model = tiny_bert(2, num_labels=32)
        assert output_layer(model) is model.classifier


class TestLabels:
    """Names decide which of the teacher's outputs is which."""

    @pytest.mark.parametrize(
        ("wanted", "given"),
        [
            (["no", "yes"], ["no", "yes"]),
            (["negative", "positive"], ["NEGATIVE", "Positive"]),
            (["not_entailment", "entailment"], ["not-entailment", " Entailment "]),
            (["not_entailment", "entailment"], ["not entailment", "ENTAILMENT"]),
            (["not_entailment", "entailment"], ["non-entailment", "entails"]),
            (["0", "1"], ["LABEL_0", "LABEL_1"]),
            (["LABEL_0", "LABEL_1"], ["0", "1"]),
            (["LABEL_0", "LABEL_1"], ["label-0", "Label 1"]),
        ],
    )
    def test_the_same_names_need_no_order(self, wanted, given):
        """Prevents the refusal of names that differ in spelling only."""
        assert output_order(wanted, given) is None

    @pytest.mark.parametrize(
        ("wanted", "given", "order"),
        [
            # MNLI of GLUE, and the order of many Hub checkpoints.
            (["entailment", "neutral", "contradiction"], ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], [2, 1, 0]),
            (["entailment", "neutral", "contradiction"], ["contradiction", "entailment", "neutral"], [1, 2, 0]),
            (["entailment", "not_entailment"], ["not-entailment", "Entailment"], [1, 0]),
            (["1", "0"], ["LABEL_0", "LABEL_1"], [1, 0]),
            (["2", "10", "1"], ["LABEL_1", "LABEL_2", "LABEL_10"], [1, 2, 0]),
        ],
    )
    def test_another_order_says_where_each_label_stands(self, wanted, given, order):
        """Prevents a student that learns the opposite, or the inverse permutation, which a swap of two never shows."""
        assert output_order(wanted, given) == order
        keys = [name.casefold().replace("-", "_").removeprefix("label_") for name in given]
        assert [keys[place] for place in order] == wanted

    def test_other_words_of_inference_are_matched(self):
        """Prevents the refusal of an NLI teacher because it says "contradicts"; and a match by position."""
        wanted = ["entailment", "neutral", "contradiction"]
        assert output_order(wanted, ["CONTRADICTORY", "Neutral", "entails"]) == [2, 1, 0]
        assert output_order(["entailment", "not_entailment"], ["not entailed", "entail"]) == [1, 0]
        with pytest.raises(TeacherError):  # two words for one label
            output_order(wanted, ["entails", "entailment", "neutral"])

    @pytest.mark.parametrize(
        ("wanted", "given"),
        [
            (["negative", "positive"], ["bad", "good"]),
            (["negative", "positive"], ["negative", "neutral", "positive"]),
            (["a", "b"], ["b", "b"]),
            (["a", "A"], ["A", "b"]),
            (["x", "x", "y"], ["y", "x", "x"]),
        ],
    )
    def test_names_that_cannot_be_matched_one_to_one_are_refused(self, wanted, given):
        """Prevents a guess by position, and duplicates that are both matched with the first."""
        with pytest.raises(TeacherError) as caught:
            output_order(wanted, given)
        assert str(caught.value) == (
            f"Expected a teacher with the labels {wanted}, got {given}. Say what the teacher's outputs are, in their "
            "order, with the names of the data: teacher_labels=[...] (in a recipe: teacher.labels)."
        )

    def test_a_teacher_without_names_is_refused_with_a_hint(self):
        """Prevents LABEL_0 from being taken for the data's first label, which is right half of the time."""
        with pytest.raises(TeacherError, match="got .'LABEL_0', 'LABEL_1'.. Nobody named the teacher's outputs. Say"):
            output_order(["negative", "positive"], ["LABEL_0", "LABEL_1"])
        with pytest.raises(TeacherError, match="Nobody named"):
            output_order(["0", "1"], ["1", "2"])

    def test_names_are_read_in_the_order_of_the_outputs(self):
        """Prevents the order of a JSON file from deciding: keys may come as 2, 0, 1."""
        model = tiny_bert(2, num_labels=3)
        model.config.id2label = {2: "good", 0: "bad", 1: "fair"}
        assert label_names(model.config) == ["bad", "fair", "good"]


class TestTokenizers:
    """One text must be the same numbers to both models."""

    @staticmethod
    def changed(change):
        """The tiny tokenizer, with something else in its JSON."""
        parts = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
        change(parts)
        return PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(json.dumps(parts)),
            **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
        )

    def test_the_same_tokenizer_is_accepted(self):
        """Prevents a comparison of objects."""
        check_same_tokenizer(tiny_tokenizer(), tiny_tokenizer())
        check_same_tokenizer(tiny_tokenizer(), self.changed(lambda parts: None))

    def test_settings_of_padding_do_not_count(self):
        """Prevents a refusal after one of two tokenizers was used: padding and truncation are kept in its JSON."""
        used = tiny_tokenizer()
        used(["a good film", "bad"], padding=True, truncation=True, max_length=4)
        check_same_tokenizer(tiny_tokenizer(), used)

    def test_class_names_do_not_count(self):
        """Prevents the refusal of DistilBERT's tokenizer beside BERT's: they are the same."""

        class OtherTokenizer(DistilBertTokenizer):
            """Another name for the same."""

        vocabulary = {token: number for number, token in enumerate(VOCABULARY)}
        mine, theirs = OtherTokenizer(vocab=vocabulary), BertTokenizer(vocab=vocabulary)
        assert type(mine).__name__ != type(theirs).__name__
        check_same_tokenizer(mine, theirs)

    def test_two_swapped_entries_are_refused(self):
        """Prevents 'good' and 'bad' from changing places in one of two vocabularies of the same size."""

        def swap(parts):
            vocabulary = parts["model"]["vocab"]
            vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]

        good, bad = VOCABULARY.index("good"), VOCABULARY.index("bad")
        message = f"but 2 of the student's 187 tokens are not the teacher's .*'bad': {bad} and {good}\\). Build the st"
        with pytest.raises(TeacherError, match=message):
            check_same_tokenizer(tiny_tokenizer(), self.changed(swap))

    def test_another_case_is_refused(self):
        """Prevents a cased teacher that gets lower-cased text: the vocabularies alone are the same."""
        other = self.changed(lambda parts: parts["normalizer"].update(lowercase=False))
        with pytest.raises(TeacherError, match=r"but their normalizer differs \(lowercase: true and false\). Build"):
            check_same_tokenizer(tiny_tokenizer(), other)

    @pytest.mark.parametrize(
        ("part", "change", "message"),
        [
            ("pre_tokenizer", {"type": "Whitespace"}, r'pre_tokenizer differs \(type: "BertPre.*" and "Whitespace"\)'),
            ("post_processor", None, r"post_processor differs \(pair: .*CLS"),
        ],
    )
    def test_another_way_to_split_or_to_frame_is_refused(self, part, change, message):
        """Prevents a teacher that reads a text without [CLS], or in other words."""
        with pytest.raises(TeacherError, match=message):
            check_same_tokenizer(tiny_tokenizer(), self.changed(lambda parts: parts.update({part: change})))

    def test_another_unknown_token_is_refused(self):
        """Prevents a rare script from being [UNK] to one model and [MASK] to the other."""
        other = self.changed(lambda parts: parts["model"].update(unk_token="[MASK]"))
        with pytest.raises(TeacherError, match=r'their model differs \(unk_token: "\[UNK\]" and "\[MASK\]"\)'):
            check_same_tokenizer(tiny_tokenizer(), other)

    def test_another_order_of_merges_is_refused(self):
        """Prevents byte-pair tokenizers of one vocabulary from cutting a word in two ways."""

        def byte_pairs(merges):
            model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4}, "merges": merges}
            return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps({**empty, "model": model})))

        empty = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": None,
        }
        mine, theirs = byte_pairs([["a", "b"], ["b", "c"]]), byte_pairs([["b", "c"], ["a", "b"]])
        assert mine("abc")["input_ids"] != theirs("abc")["input_ids"]
        with pytest.raises(TeacherError, match="their model differs .merges"):
            check_same_tokenizer(mine, theirs)

    @pytest.mark.parametrize("is_student_larger", [True, False])
    def test_a_larger_vocabulary_is_refused(self, is_student_larger):
        """Prevents a word that only one of the two knows."""
        larger = tiny_tokenizer()
        larger.add_tokens(["cinematography"])
        pair = (larger, tiny_tokenizer()) if is_student_larger else (tiny_tokenizer(), larger)
        message = (
            "1 of the student's 188 tokens are not the teacher's .for example 'cinematography': 187 and none"
            if is_student_larger
            else "the teacher's vocabulary has 1 tokens more"
        )
        with pytest.raises(TeacherError, match=message):
            check_same_tokenizer(*pair)

    def test_a_tokenizer_written_in_python_is_tried_on_a_text(self):
        """Prevents the refusal of a slow tokenizer because it has no normalizer to show, and its blind acceptance."""

        class Characters(PythonBackend):
            """Letters, lower-cased or not."""

            def __init__(self, is_lower):
                self.is_lower = is_lower
                self.entries = {character: number for number, character in enumerate("?abcdefghijklmnopqrstuvwxyzAC")}
                super().__init__(unk_token="?")

            vocab_size = property(lambda self: len(self.entries))

            def get_vocab(self):
                return dict(self.entries)

            def _tokenize(self, text, **kwargs):
                return list(text.lower() if self.is_lower else text)

            def _convert_token_to_id(self, token):
                return self.entries.get(token, 0)

        check_same_tokenizer(Characters(True), Characters(True))
        with pytest.raises(TeacherError, match=r"No. 42!\" is \[1, .* to the student and \[27, .* to the teacher"):
            check_same_tokenizer(Characters(True), Characters(False))


def test_nothing_is_changed_by_the_checks():
    """Prevents a check that leaves a model in another mode or with other weights."""
    teacher, student = tiny_bert(4), tiny_bert(2).train()
    before = copy.deepcopy((teacher.state_dict(), student.state_dict()))
    check_teacher(student, teacher)
    assert (teacher.training, student.training) == (False, True)
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    for state, model in zip(before, (teacher, student), strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


class TestTokenizerIdentity:
    def test_options_of_a_tokenizer_written_in_python_count(self, tmp_path):
        """Prevents old logits, or old ids, for a tokenizer that lower-cases where the former one did not."""
        from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

        (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
        one, other, again = (
            tokenizer_identity(BertTokenizerLegacy(str(tmp_path / "vocab.txt"), do_lower_case=is_lower))
            for is_lower in (True, False, True)
        )
        assert one != other
        assert one == again

    def test_padding_and_truncation_do_not(self):
        """Prevents a cache that is never found, because a tokenizer was used in between."""
        tokenizer = tiny_tokenizer()
        before = tokenizer_identity(tokenizer)
        tokenizer(["a", "good film"], padding=True, truncation=True, max_length=4)
        assert tokenizer_identity(tokenizer) == before

    def test_the_vocabulary_and_the_special_tokens_do(self):
        """Prevents two tokenizers of one class from being taken for the same."""
        tokenizer, other = tiny_tokenizer(), tiny_tokenizer()
        other.add_tokens(["film2"])
        assert tokenizer_identity(tokenizer) != tokenizer_identity(other)
