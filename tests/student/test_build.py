"""Students: the teacher's own network with some of its layers, bit for bit."""

import copy
import re

import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoConfig,
    AutoModelForSequenceClassification,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from distilbert_kd import build_student
from distilbert_kd.errors import RecipeError, TeacherError
from distilbert_kd.student.build import SUPPORTED_ARCHITECTURES, count_layers
from tests.tiny import tiny_bert


NUM_LAYERS = 7
LABELS = {0: "bad", 1: "fair", 2: "good"}
SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "initializer_range": 0.2,
    "id2label": LABELS,
    "label2id": {name: number for number, name in LABELS.items()},
    "problem_type": "single_label_classification",
    "pad_token_id": 0,
}
OWN_SIZES = {
    "electra": {"embedding_size": 16},  # the only one with a projection between embeddings and layers
    "deberta-v2": {
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "conv_kernel_size": 3,
        "type_vocab_size": 2,
    },
    "modernbert": {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
        "local_attention": 4,  # so short that a sliding and a full layer differ on 16 tokens
        "global_attn_every_n_layers": 3,
    },
}
ARCHITECTURES = list(SUPPORTED_ARCHITECTURES)
LAYERS = [0, 2, 3, 6]  # a full layer of ModernBERT follows a sliding one, and one of each kind is left out


def random_teacher(architecture):
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **SIZES, **OWN_SIZES.get(architecture, {}))
    teacher = AutoModelForSequenceClassification.from_config(config)
    for parameter in teacher.parameters():
        if parameter.dim() == 1:  # biases and norms start as constants, which no swap of layers would show
            nn.init.normal_(parameter, std=0.2)
    return teacher.eval()


def batch():
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(3, 16, dtype=torch.long)
    mask[1, 10:] = 0
    return {"input_ids": torch.randint(3, 60, (3, 16), generator=generator) * mask, "attention_mask": mask}


def logits_of(model):
    with torch.no_grad():
        return model.eval()(**batch()).logits


def layers_of(model):
    return model.base_model.get_submodule(SUPPORTED_ARCHITECTURES[model.config.model_type])


@pytest.fixture(params=ARCHITECTURES)
def teacher(request):
    return random_teacher(request.param)


class TestEveryArchitecture:
    """The same promises for each architecture that the package says it supports."""

    def test_every_weight_is_the_one_of_its_teacher_layer(self, teacher):
        """Prevents a part that keeps its random start, and layers that are mixed up."""
        student = build_student(teacher, layers=LAYERS)
        teacher_state = teacher.state_dict()
        path = SUPPORTED_ARCHITECTURES[teacher.config.model_type]
        numbers = set()
        for name, tensor in student.state_dict().items():
            found = re.search(rf"\.{re.escape(path)}\.(\d+)\.", name)
            source = name
            if found:
                numbers.add(int(found[1]))
                source = name.replace(found[0], f".{path}.{LAYERS[int(found[1])]}.")
            assert torch.equal(tensor, teacher_state[source]), name
        assert numbers == {0, 1, 2, 3}
        assert count_layers(student) == len(layers_of(student)) == student.config.num_hidden_layers == 4

    def test_a_student_computes_what_the_teacher_without_the_other_layers_does(self, teacher):
        """Prevents right weights in a network that uses them otherwise: layer types, convolutions, positions."""
        student = build_student(teacher, layers=LAYERS)
        # The oracle takes no part in building: the teacher's own objects, four of seven left in the list.
        shorter = copy.deepcopy(teacher)
        layers = layers_of(shorter)
        for layer in sorted(set(range(NUM_LAYERS)) - set(LAYERS), reverse=True):
            del layers[layer]
        if shorter.config.model_type == "modernbert":
            # Its forward reads the kind of attention by position, and each layer carries what it was built with.
            shorter.config.layer_types = [layer.attention_type for layer in layers]
            assert shorter.config.layer_types == [
                "full_attention",
                "sliding_attention",
                "full_attention",
                "full_attention",
            ]
        assert torch.equal(logits_of(student), logits_of(shorter))
        assert not torch.allclose(logits_of(student), logits_of(teacher), atol=1e-2)

    def test_all_layers_kept_gives_the_teachers_logits(self, teacher):
        """Prevents a copy that differs from the teacher in anything but depth."""
        student = build_student(teacher, NUM_LAYERS, "first")
        assert torch.equal(logits_of(student), logits_of(teacher))
        assert logits_of(teacher).std() > 0.05

    def test_labels_and_settings_are_kept(self, teacher):
        """Prevents a student that says LABEL_0, or counts as another kind of task."""
        student = build_student(teacher, layers=LAYERS)
        assert type(student) is type(teacher)
        assert student.config.id2label == LABELS
        assert student.config.label2id == {"bad": 0, "fair": 1, "good": 2}
        assert student.config.problem_type == "single_label_classification"
        mine, theirs = student.config.to_dict(), teacher.config.to_dict()
        differing = {key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)}
        assert differing <= {"num_hidden_layers", "n_layers", "layer_types", "dtype", "architectures"}
        assert teacher.config.num_hidden_layers == NUM_LAYERS

    def test_training_the_student_leaves_the_teacher_alone(self, teacher):
        """Prevents a teacher that learns from its student through shared memory."""
        before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
        teacher.requires_grad_(False)
        student = build_student(teacher, layers=LAYERS)
        assert student.training
        assert all(parameter.requires_grad for parameter in student.parameters())
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        student(**batch(), labels=torch.tensor([0, 1, 2])).loss.backward()
        optimizer.step()
        after = student.state_dict()
        changed = [
            name
            for name, tensor in build_student(teacher, layers=LAYERS).state_dict().items()
            if not torch.equal(tensor, after[name])
        ]
        assert len(changed) > 20
        assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
        pointers = {parameter.data_ptr() for parameter in teacher.parameters()}
        assert not pointers & {parameter.data_ptr() for parameter in student.parameters()}

    def test_a_saved_student_loads_without_our_code(self, teacher, tmp_path):
        """Prevents a folder that from_pretrained fills up with random weights, or reads as another network."""
        student = build_student(teacher, layers=LAYERS)
        student.save_pretrained(tmp_path)
        loaded, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        assert not report["mismatched_keys"]
        assert type(loaded) is type(teacher)
        assert loaded.config.id2label == LABELS
        assert torch.equal(logits_of(loaded), logits_of(student))

    def test_a_half_precision_teacher_gives_a_float32_student(self, teacher, tmp_path):
        """Prevents AdamW on bfloat16 weights, whose small updates are rounded away, and such a saved student."""
        student = build_student(teacher.to(torch.bfloat16), layers=LAYERS)
        assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}
        assert student.config.dtype == torch.float32
        expected = teacher.base_model.get_input_embeddings().weight
        assert torch.equal(student.base_model.get_input_embeddings().weight, expected.float())
        student.save_pretrained(tmp_path)
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_half_of_the_layers_alternating_is_the_default():
    """Prevents another student than the one of the paper when nothing is said."""
    teacher = tiny_bert(5)
    student = build_student(teacher)
    assert count_layers(student) == 2
    for mine, theirs in ((0, 0), (1, 2)):
        expected = layers_of(teacher)[theirs].attention.self.query.weight
        assert torch.equal(layers_of(student)[mine].attention.self.query.weight, expected)


def test_the_attention_implementation_is_the_teachers():
    """Prevents a teacher on eager attention (for its attention maps) whose student has none to give."""
    teacher = tiny_bert(4, attn_implementation="eager")
    assert build_student(teacher).config._attn_implementation == teacher.config._attn_implementation == "eager"


def test_a_student_of_a_student_can_be_built():
    """Prevents layer numbers that are taken from the first teacher's configuration."""
    teacher = tiny_bert(8)
    second = build_student(build_student(teacher, 4, "alternate"), 2, "last")
    for mine, theirs in ((0, 4), (1, 6)):
        expected = layers_of(teacher)[theirs].output.dense.weight
        assert torch.equal(layers_of(second)[mine].output.dense.weight, expected)


def test_a_base_model_without_a_head_can_be_cut():
    """Prevents a prefix that is looked for where there is none: an encoder is its own base model."""
    teacher = BertModel(tiny_bert(4).config).eval()
    student = build_student(teacher, layers=[1, 3]).eval()
    state = teacher.state_dict()
    assert torch.equal(
        student.state_dict()["encoder.layer.1.output.dense.weight"], state["encoder.layer.3.output.dense.weight"]
    )
    assert torch.equal(student.pooler.dense.weight, teacher.pooler.dense.weight)
    del teacher.encoder.layer[2], teacher.encoder.layer[0]
    inputs = batch()
    with torch.no_grad():
        assert torch.equal(student(**inputs).pooler_output, teacher(**inputs).pooler_output)


def test_a_masked_language_model_keeps_its_decoder_tied():
    """Prevents a decoder that comes loose from the embeddings, trains apart and is lost when saved."""
    teacher = BertForMaskedLM(tiny_bert(4).config).eval()
    student = build_student(teacher).eval()
    decoder, embeddings = student.get_output_embeddings(), student.get_input_embeddings()
    assert decoder.weight is embeddings.weight
    assert torch.equal(decoder.weight, teacher.get_output_embeddings().weight)
    assert torch.equal(decoder.bias, teacher.get_output_embeddings().bias)
    assert decoder.bias is student.cls.predictions.bias


@pytest.mark.parametrize(
    ("model_class", "config", "name"),
    [
        (
            AlbertForSequenceClassification,
            AlbertConfig(
                vocab_size=60,
                embedding_size=8,
                hidden_size=16,
                num_attention_heads=2,
                intermediate_size=16,
                num_hidden_layers=4,
            ),
            "AlbertForSequenceClassification .*'albert'",
        ),
        (
            GPT2ForSequenceClassification,
            GPT2Config(vocab_size=60, n_embd=16, n_head=2, n_layer=4, n_positions=16),
            "GPT2ForSequenceClassification .*'gpt2'",
        ),
    ],
)
def test_an_architecture_that_cannot_be_cut_is_refused_by_name(model_class, config, name):
    """Prevents ALBERT's one shared layer from passing for many, and silently uncut students of unknown models."""
    with pytest.raises(TeacherError, match=rf"bert, roberta, electra, distilbert, .*; got {name}.* Take a teacher of"):
        build_student(model_class(config))


def test_something_that_is_no_transformers_model_is_refused_by_name():
    """Prevents an AttributeError deep inside, without a word on what was wanted."""
    with pytest.raises(TeacherError, match="got Linear "):
        build_student(nn.Linear(2, 2))


@pytest.mark.parametrize("layers", ["alternate_last", "last", [1, 2]])
def test_a_modernbert_without_its_first_layer_is_refused_with_advice(layers):
    """Prevents a first layer whose norm is dropped: ModernBERT's layer 0 has none, every other one has."""
    with pytest.raises(TeacherError, match=r"where it stands \(.*attn_norm.*\). Keep teacher layer 0 as the first"):
        build_student(random_teacher("modernbert"), layers=layers)


def test_a_depth_that_does_not_fit_is_refused():
    """Prevents a student deeper than its teacher."""
    with pytest.raises(RecipeError, match="expected 1 to 4, the layers of the model that it is cut from, got 5"):
        build_student(tiny_bert(4), 5)


def test_distilberts_own_names_for_its_sizes_are_understood():
    """Prevents a depth that is written where DistilBERT does not read it: it calls it n_layers."""
    config = DistilBertConfig(vocab_size=60, dim=16, n_heads=2, n_layers=6, hidden_dim=16, max_position_embeddings=16)
    student = build_student(DistilBertForSequenceClassification(config))
    assert student.config.n_layers == len(student.distilbert.transformer.layer) == 3
    assert config.n_layers == 6
