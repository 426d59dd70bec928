"""Models with bad intentions, as real folders: nothing outside a model's folder is read, no pickle, no code."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file

from distilbert_kd.errors import TeacherError
from distilbert_kd.model_files import check_model_files
from distilbert_kd.pretraining.models import load_language_model
from distilbert_kd.teacher import load_base, load_classifier, load_tokenizer
from tests.tiny import tiny_bert, tiny_tokenizer


SECRET = "HF_TOKEN=canary-4711\nthe\nfilm\n"


@pytest.fixture
def folder(tmp_path):
    """A whole model folder; beside it another one, `outside`, and a secret."""
    (tmp_path / "secret.env").write_text(SECRET)
    for name in ("outside", "model"):
        tiny_bert(2).save_pretrained(tmp_path / name)
        tiny_tokenizer(tmp_path / name)
    return tmp_path / "model"


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def shard(folder, name):
    """Leaves an index in place of the weights, by which all of them are in one other file."""
    names = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, str(name))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def refused(folder, load=load_classifier):
    with pytest.raises(TeacherError) as error:
        load(str(folder))
    return str(error.value)


class TestPaths:
    @pytest.mark.parametrize("is_absolute", [False, True])
    def test_an_index_that_leads_out(self, folder, is_absolute):
        """Weights from anywhere on the disk would be loaded, and published with the student: transformers follows."""
        target = folder.parent / "outside" / "model.safetensors" if is_absolute else "../outside/model.safetensors"
        shard(folder, target)
        for load in (
            load_classifier,
            lambda name: load_base(name, ["a", "b"]),
            lambda name: load_language_model(name, None, needs_head=False),
        ):
            assert f"model.safetensors.index.json: weights in '{target}'"[:100] in refused(folder, load)

    def test_an_index_that_stays(self, folder):
        """Models of many shards would be refused along with the bad ones."""
        (folder / "model-00001-of-00001.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
        expected = load_classifier(str(folder.parent / "outside")).state_dict()
        shard(folder, "model-00001-of-00001.safetensors")
        found = load_classifier(str(folder)).state_dict()
        assert all(torch.equal(found[name], expected[name]) for name in expected)

    @pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt", "config.json"])
    def test_a_link_that_leads_out(self, folder, name):
        """A vocabulary that is a link to a secret would be copied into the student's folder, and pushed."""
        target = folder.parent / ("secret.env" if name == "vocab.txt" else f"outside/{name}")
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
        for load in (load_classifier, load_tokenizer):
            assert f"{name}, a link to {target}" in refused(folder, load)

    def test_a_chat_template_that_is_a_link(self, folder, tmp_path):
        """`additional_chat_templates` is the one subfolder that a tokenizer reads, and saves with the student."""
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "x.jinja").symlink_to(tmp_path / "secret.env")
        assert f"additional_chat_templates/x.jinja, a link to {tmp_path}" in refused(folder, load_tokenizer)

    @pytest.mark.parametrize("has_config", [True, False])
    def test_an_adapter(self, folder, has_config):
        """With `peft`, a base model from elsewhere would be read; without it, the adapter would be left out."""
        (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "../outside"}')
        if not has_config:
            (folder / "config.json").unlink()
        assert "adapter_config.json: an adapter of '../outside'" in refused(folder)

    def test_links_that_stay(self, folder, tmp_path):
        """Neither the Hub's own cache could be given as a folder, nor a folder that is itself a link."""
        snapshot = tmp_path / "models--ada--tiny" / "snapshots" / ("5" * 40)
        snapshot.parent.mkdir(parents=True)
        folder.rename(snapshot)
        (tmp_path / "models--ada--tiny" / "blobs").mkdir()
        for file in sorted(snapshot.iterdir()):
            blob = tmp_path / "models--ada--tiny" / "blobs" / file.name
            file.rename(blob)
            file.symlink_to(os.path.relpath(blob, snapshot))
        (tmp_path / "link").symlink_to(snapshot)
        assert (
            load_classifier(str(tmp_path / "link")).num_parameters() == load_classifier(str(snapshot)).num_parameters()
        )

    @pytest.mark.parametrize("key", ["vocab_file", "tokenizer_file", "special_tokens_map_file"])
    def test_a_file_that_the_tokenizers_config_names(self, folder, key, tmp_path):
        """A secret would become a vocabulary and leave with the student's tokenizer: huggingface/transformers#46279.

        Many good folders name a file of the machine that they were saved on, so that it is not read is what counts.
        """
        change(
            folder / "tokenizer_config.json", **{key: str(tmp_path / "secret.env")}, tokenizer_class="BertTokenizer"
        )
        tokenizer = load_tokenizer(str(folder))
        assert tokenizer.get_vocab() == tiny_tokenizer().get_vocab()
        tokenizer.save_pretrained(tmp_path / "saved")
        assert not [file for file in (tmp_path / "saved").iterdir() if b"canary" in file.read_bytes()]
        (folder / "tokenizer.json").unlink()
        assert "without a vocabulary" in refused(folder, load_tokenizer)

    def test_another_versions_tokenizer_outside(self, folder):
        """`fast_tokenizer_files` is the one such name that transformers does follow."""
        (folder / "tokenizer.json").rename(folder.parent / "outside" / "tokenizer.1.0.0.json")
        change(folder / "tokenizer_config.json", fast_tokenizer_files=["../outside/tokenizer.1.0.0.json"])
        assert "a vocabulary in '../outside/tokenizer.1.0.0.json'" in refused(folder, load_tokenizer)

    def test_weights_that_the_config_names(self, folder):
        """A config could lead to weights outside the folder, or to an index that nobody has checked."""
        shard(folder, "../outside/model.safetensors")
        (folder / "model.safetensors.index.json").rename(folder / "other.safetensors.index.json")
        for name in ("../outside/model.safetensors", "other.safetensors.index.json", ["a.safetensors"], None):
            change(folder / "config.json", transformers_weights=name)
            assert f"config.json: weights in {str(name)!r}" in refused(folder)

    def test_weights_of_another_name_that_stay(self, folder):
        """A good folder whose weights have another name would be refused along with the bad ones."""
        (folder / "model.safetensors").rename(folder / "other.safetensors")
        change(folder / "config.json", transformers_weights="other.safetensors")
        load_classifier(str(folder))

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("configuration_files", ["config.4.0.0.json"]),
            ("attribute_map", {"transformers_weights": "problem_type"}),
        ],
    )
    def test_a_config_that_leads_past_the_check(self, folder, name, values):
        """Transformers reads another config in place of config.json, or other keys in place of those checked."""
        change(folder / "config.json", **{name: values})
        assert f"config.json: {name}, which leads past this check" in refused(folder)

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "tokenizer_config.json"])
    def test_a_file_that_is_too_large_to_check(self, folder, name, monkeypatch):
        """A bad index, padded with blanks until nobody checks it, would be followed all the same."""
        monkeypatch.setattr("distilbert_kd.model_files._LARGEST", 10_000)
        shard(folder, "../outside/model.safetensors")
        check = folder / name
        check.write_text(check.read_text() + " " * 10_000)
        assert f"{name}: more than 10000 bytes, too many to be checked" in refused(folder)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


class TestCode:
    @pytest.mark.parametrize("by", ["name", "index", "config", "index of config"])
    def test_a_pickle_is_not_opened(self, folder, tmp_path, by):
        """Whoever wrote the file would run commands as the user; an index in safetensors' name may lead to one."""
        torch.save({"x": Payload(tmp_path / "ran")}, folder / "pytorch_model.bin")
        if by == "index":
            shard(folder, "pytorch_model.bin")
            assert "weights in 'pytorch_model.bin'" in refused(folder)
        elif by == "name":
            (folder / "model.safetensors").unlink()
            assert "A .bin file is a pickle" in refused(folder)
        else:
            shard(folder, "pytorch_model.bin")
            (folder / "model.safetensors.index.json").rename(folder / "x.safetensors.index.json")
            name = "pytorch_model.bin" if by == "config" else "x.safetensors.index.json"
            change(folder / "config.json", transformers_weights=name)
            assert f"weights in '{name}'" in refused(folder)
        assert not (tmp_path / "ran").exists()

    def test_the_payload_works(self, tmp_path):
        """The test above would pass on a payload that does nothing."""
        torch.save({"x": Payload(tmp_path / "ran")}, tmp_path / "a.bin")
        torch.load(tmp_path / "a.bin", weights_only=False)
        assert (tmp_path / "ran").exists()

    @pytest.mark.parametrize("model_type", ["bert", "mystery"])
    def test_code_beside_the_weights_is_not_run(self, folder, tmp_path, monkeypatch, model_type):
        """A model would run its author's code, or a question on the terminal would wait in the middle of a run."""
        monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("asked on the terminal"))
        (folder / "code.py").write_text(
            f"import os; os.mkdir({str(tmp_path / 'ran')!r})\nfrom transformers import *\n"
            "class Config(BertConfig): pass\nclass Model(BertForSequenceClassification): pass\n"
            "class Tokenizer(PreTrainedTokenizerFast): pass\n"
        )
        maps = {"AutoConfig": "code.Config", "AutoModelForSequenceClassification": "code.Model"}
        change(folder / "config.json", auto_map=maps, trust_remote_code=True, model_type=model_type)
        change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Tokenizer"] * 2})
        if model_type == "mystery":
            assert "custom code" in refused(folder)
        else:
            assert type(load_classifier(str(folder))).__module__.startswith("transformers.")
            load_tokenizer(str(folder))
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation", "_attn_implementation_internal"])
    def test_a_kernel_that_the_config_names(self, folder, key):
        """With `kernels` installed, a config would fetch code from the Hub: CVE-2026-4372, and its other spellings."""
        change(folder / "config.json", **{key: "somebody/kernel"})
        assert 'config.json: the kernel "somebody/kernel", which is code' in refused(folder)


def test_a_repository_of_the_hub_is_looked_at_too(folder, tmp_path, monkeypatch):
    """The check would hold for folders alone, while most models that nobody has looked at come from the Hub."""
    shard(folder, "pytorch_model.bin")
    snapshot = tmp_path / "models--ada--tiny" / "snapshots" / ("5" * 40)
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    (tmp_path / "models--ada--tiny" / "refs").mkdir()
    (tmp_path / "models--ada--tiny" / "refs" / "main").write_text("5" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TeacherError, match="got ada/tiny with model.safetensors.index.json: weights in 'pytorch_mod"):
        check_model_files("ada/tiny")


@pytest.mark.parametrize("content", ["[]", "{", '{"weight_map": []}', '{"weight_map": {"a": null}}', "[" * 100_000])
def test_files_that_are_none(folder, content):
    """A broken file would end the check, and so the run, in a traceback."""
    shard(folder, "x.safetensors")
    (folder / "model.safetensors.index.json").write_text(content)
    assert refused(folder).startswith("Expected a model")
