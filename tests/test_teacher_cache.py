"""The teacher's answers on disk: found by what they depend on, whole or not at all."""

import multiprocessing
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from distilbert_kd.errors import DivergedError, StorageError
from distilbert_kd.prepared_arguments import prediction_arguments
from distilbert_kd.scoring import predict_logits
from distilbert_kd.task_rows import tokenize_rows
from distilbert_kd.teacher_cache import cache_key, cached_teacher_logits
from tests.tiny import tiny_bert, tiny_tokenizer


SENTENCES = [f"the film is {'very ' * (i % 7)}good and {i}" for i in range(40)]


def texts_of(sentences=SENTENCES, pairs=None):
    columns = {"text": sentences} | ({"text_pair": pairs} if pairs else {})
    return datasets.Dataset.from_dict(columns)


def ask(folder, teacher, texts=None, max_length=32):
    texts, tokenizer = texts or texts_of(), tiny_tokenizer()
    rows = tokenize_rows(texts, tokenizer, max_length, teacher).dataset
    return cached_teacher_logits(teacher, tokenizer, texts, rows, max_length, settings(folder), folder / "cache")


def settings(folder, **values):
    return prediction_arguments({"use_cpu": True, **values}, "training", folder / "out", show_bars=False)


def places(folder):
    return sorted(path for path in (folder / "cache").iterdir())


def test_the_cache_holds_what_the_teacher_says(tmp_path):
    """Prevents answers in another order than the rows: the pass sorts them by length."""
    teacher, tokenizer = tiny_bert(3), tiny_tokenizer()
    cached = np.array(ask(tmp_path, teacher)["teacher_logits"][:])
    with torch.no_grad():
        alone = [teacher(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in SENTENCES]
    np.testing.assert_allclose(cached, alone, atol=1e-5)


def test_a_second_run_does_not_ask_the_teacher(tmp_path):
    """Prevents a cache that is written and never read."""
    first = ask(tmp_path, tiny_bert(3))
    teacher = tiny_bert(3)
    teacher.register_forward_pre_hook(lambda *_: pytest.fail("the teacher was asked"))
    second = ask(tmp_path, teacher)
    assert first["teacher_logits"][:] == second["teacher_logits"][:]
    assert second.cache_files  # memory-mapped


@pytest.mark.parametrize(
    "change", ["weights", "config", "one row", "order", "pair", "max length", "tokenizer", "precision", "truncation"]
)
def test_a_change_of_anything_that_matters_is_another_cache(change):
    """Prevents a retrained teacher or a changed row from getting old logits."""
    tokenizer = tiny_tokenizer()
    key = cache_key(tiny_bert(3), tokenizer, texts_of(), 32)
    teacher, texts, max_length = tiny_bert(3), texts_of(), 32
    if change == "weights":
        with torch.no_grad():
            teacher.classifier.bias[0] += 1e-6
    elif change == "config":
        teacher.config.layer_norm_eps = 1e-6
    elif change == "one row":
        texts = texts_of([*SENTENCES[:-1], "another"])
    elif change == "order":
        texts = texts_of(SENTENCES[::-1])
    elif change == "pair":
        texts = texts_of(SENTENCES, SENTENCES)
    elif change == "max length":
        max_length = 31
    elif change == "truncation":
        tokenizer.truncation_side = "left"
    else:
        tokenizer.backend_tokenizer.normalizer = None
    precision = "bf16" if change == "precision" else "float32"
    assert cache_key(teacher, tokenizer, texts, max_length, precision) != key


def test_names_modes_and_calls_make_no_difference():
    """Prevents asking again for the same thing."""
    tokenizer, teacher = tiny_tokenizer(), tiny_bert(3)
    key = cache_key(teacher, tokenizer, texts_of(), 32)
    tokenizer(SENTENCES, truncation=True, max_length=5, padding=True)
    teacher.config._name_or_path = "elsewhere"
    teacher.config.use_cache = not teacher.config.use_cache  # every Trainer sets it, that of predictions too
    assert cache_key(teacher.train(), tokenizer, texts_of(), 32) == key
    with_labels = texts_of().add_column("label", [0] * len(SENTENCES))
    assert cache_key(teacher, tokenizer, with_labels, 32) == key


@pytest.mark.parametrize("damage", ["truncated", "one byte", "no data", "no manifest", "half a manifest"])
def test_a_damaged_cache_is_found_and_built_anew(tmp_path, damage, caplog):
    """Prevents training on half a cache, or on flipped bits."""
    expected = ask(tmp_path, tiny_bert(3))["teacher_logits"][:]
    (place,) = places(tmp_path)
    (data,) = place.glob("data-*.arrow")
    manifest = place / "manifest.json"
    content = data.read_bytes()
    if damage == "truncated":
        data.write_bytes(content[: len(content) // 2])
    elif damage == "one byte":
        data.write_bytes(content[:-50] + bytes([content[-50] ^ 1]) + content[-49:])
    elif damage == "no data":
        data.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(manifest.read_text()[:40])
    assert ask(tmp_path, tiny_bert(3))["teacher_logits"][:] == expected
    assert "damaged" in caplog.text
    assert places(tmp_path) == [place]


def build(folder, results):
    torch.set_num_threads(1)
    results.put(ask(Path(folder), tiny_bert(3))["teacher_logits"][:])


@pytest.mark.slow
def test_two_processes_that_build_the_same_cache_do_no_harm(tmp_path):
    """Prevents half-written caches where two runs start together."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=build, args=(str(tmp_path), results)) for _ in range(3)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert answers[0] == answers[1] == answers[2]
    assert len(places(tmp_path)) == 1


def test_another_process_that_is_first_wins(tmp_path, monkeypatch):
    """Prevents a run that fails because its cache was built beside it."""
    from distilbert_kd import teacher_cache

    ask(tmp_path, tiny_bert(3))
    (place,) = places(tmp_path)
    before = place.stat().st_ino
    teacher_cache._write(place, np.zeros((40, 2), dtype=np.float32))
    assert places(tmp_path) == [place]
    assert place.stat().st_ino == before


def test_logits_that_are_not_finite_are_refused(tmp_path):
    """Prevents a cache that makes every later training diverge."""
    teacher = tiny_bert(3)
    with torch.no_grad():
        teacher.classifier.bias.fill_(float("nan"))
    with pytest.raises(DivergedError, match="40 rows"):
        ask(tmp_path, teacher)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cant_be_written_says_where_and_what_to_do(tmp_path):
    """Prevents a traceback for a full or closed disk."""
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(StorageError, match=r"cache.*teacher\.cache_dir"):
        ask(tmp_path, tiny_bert(3))


def test_predictions_in_half_precision_leave_the_model_as_it_was(tmp_path):
    """Prevents a model that stays under autocast for good: timed, and asked again, as another than its teacher."""
    teacher, tokenizer = tiny_bert(3), tiny_tokenizer()
    rows = tokenize_rows(texts_of(), tokenizer, 32, teacher).dataset
    before = predict_logits(teacher, tokenizer, rows, settings(tmp_path))
    half = predict_logits(teacher, tokenizer, rows, settings(tmp_path, bf16=True))
    assert np.abs(half - before).max() > 1e-4
    assert "forward" not in vars(teacher)
    np.testing.assert_array_equal(predict_logits(teacher, tokenizer, rows, settings(tmp_path)), before)
