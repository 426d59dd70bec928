"""DistillationTrainer: what each model sees, what is refused, and that Trainer goes on working."""

import logging
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import DistilBertConfig, DistilBertForSequenceClassification, TrainerCallback

from distilbert_kd import DistillationTrainer, Schedule, build_student
from distilbert_kd.errors import DataError, DivergedError, RecipeError, TeacherError
from tests.tiny import VOCABULARY, tiny_bert, tiny_tokenizer
from tests.training_rows import arguments, collator, flat_weights, pair_rows, quiet, without_dropout


def trainer_of(folder, rows, *, teacher=None, model=None, training=None, **settings):
    return quiet(
        DistillationTrainer(
            model=model or (build_student(teacher) if teacher is not None else tiny_bert(2)),
            args=arguments(folder, **(training or {})),
            train_dataset=rows,
            eval_dataset=rows,
            data_collator=collator(),
            teacher=teacher,
            **settings,
        )
    )


def distilbert(num_labels=2, **config):
    shape = {"dim": 32, "n_heads": 2, "n_layers": 2, "hidden_dim": 64, "max_position_embeddings": 64}
    config = DistilBertConfig(vocab_size=len(VOCABULARY), num_labels=num_labels, **shape, **config)
    return DistilBertForSequenceClassification(config)


class TestInputs:
    """Each model gets what it takes."""

    def test_a_bert_teacher_of_a_distilbert_student_sees_the_segments(self, tmp_path):
        """Prevents a teacher that takes every pair for a single text, because Trainer keeps the student's columns."""
        teacher, seen = tiny_bert(4), []
        teacher.bert.embeddings.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["token_type_ids"]), with_kwargs=True
        )
        rows = pair_rows(8)
        trainer_of(tmp_path, rows, teacher=teacher, model=distilbert(), training={"batch_size": 8}).train()
        assert all(segments is not None and segments.any() for segments in seen)
        assert len(seen) == 2

    def test_the_student_gets_no_column_of_the_teacher(self, tmp_path):
        """Prevents teacher logits in the student's forward, which swallows unknown names without a word."""
        student, seen = distilbert(), set()
        forward = student.forward
        signature = forward.__func__

        def spying(input_ids=None, attention_mask=None, labels=None, **kwargs):
            seen.update(kwargs)
            return signature(student, input_ids=input_ids, attention_mask=attention_mask, labels=labels, **kwargs)

        student.forward = spying
        rows = pair_rows(8).add_column("teacher_logits", [[0.5, -0.5]] * 8)
        trainer = trainer_of(tmp_path, rows, model=student)
        trainer.train()
        trainer.predict(rows.remove_columns("labels"))
        assert seen == set()

    def test_cached_teacher_logits_train_as_the_teacher_itself(self, tmp_path):
        """Prevents a cache that means something else than the teacher."""
        rows, teacher = pair_rows(40), tiny_bert(4, seed=9).double()
        asked = quiet(DistillationTrainer(teacher, arguments(tmp_path), data_collator=collator(), alpha=0))
        cached = rows.add_column("teacher_logits", asked.predict(rows).predictions.tolist())
        weights = []
        for source, train_rows in ((teacher, rows), (None, cached)):
            # float64: a key's bias has a gradient of rounding errors only, which Adam makes whole steps of
            trainer = trainer_of(tmp_path, train_rows, teacher=source, model=without_dropout().double())
            trainer.train()
            weights.append(flat_weights(trainer.model))
        torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-6)

    def test_rows_that_are_made_on_the_fly_work_too(self, tmp_path):
        """Prevents a data set with a transform from being judged by the columns that it is made of."""
        rows = pair_rows(20).rename_column("labels", "y")
        rows.set_transform(lambda batch: {**{k: v for k, v in batch.items() if k != "y"}, "labels": batch["y"]})
        training = {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False}
        trainer = trainer_of(tmp_path, rows, model=tiny_bert(2), alpha=0, training=training)
        assert trainer.train().global_step == 2

    def test_teacher_logits_of_rows_in_a_list_are_found(self, tmp_path):
        """Prevents a message that a column is missing which is there."""
        rows = pair_rows(20).add_column("teacher_logits", [[0.5, -0.5]] * 20)
        trainer = trainer_of(tmp_path, [rows[i] for i in range(20)], model=tiny_bert(2))
        trainer.train()
        assert "soft_loss" in trainer.state.log_history[0]

    def test_rows_that_are_no_datasets_dataset_work_too(self, tmp_path):
        """Prevents a trainer that only knows one kind of data set."""
        rows = pair_rows(20)
        trainer = trainer_of(tmp_path, [rows[i] for i in range(20)], teacher=tiny_bert(4))
        assert trainer.train().global_step == 2
        assert trainer.predict([rows[i] for i in range(20)]).predictions.shape == (20, 2)


class TestTeacher:
    """Frozen, and asked in training only."""

    def test_it_is_frozen_in_eval_mode_and_not_changed(self, tmp_path):
        """Prevents a teacher that is trained along, or that answers with dropout."""
        teacher = tiny_bert(4).train()
        before = flat_weights(teacher)
        student = build_student(teacher)
        trainer = trainer_of(tmp_path, pair_rows(32), teacher=teacher, model=student)
        trainer.train()
        assert torch.equal(flat_weights(teacher), before)
        assert not teacher.training
        assert not any(p.requires_grad for p in teacher.parameters())
        optimised = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
        assert optimised == {id(p) for p in student.parameters()}

    def test_it_is_not_asked_to_evaluate_or_predict(self, tmp_path):
        """Prevents evaluations at several times their cost, and students that need their teacher to be used."""
        teacher = tiny_bert(4)
        trainer = trainer_of(tmp_path, pair_rows(16), teacher=teacher)
        teacher.register_forward_pre_hook(lambda *_: pytest.fail("the teacher was asked"))
        assert set(trainer.evaluate()) >= {"eval_loss"}
        assert trainer.predict(pair_rows(16)).predictions.shape == (16, 2)

    def test_it_is_neither_saved_nor_wrapped(self, tmp_path):
        """Prevents student folders with two models in them, and a teacher that unsettles a later evaluation."""
        trainer = trainer_of(tmp_path, pair_rows(16), teacher=tiny_bert(4), training={"save_strategy": "epoch"})
        trainer.train()
        assert trainer.accelerator._models == [trainer.model_wrapped]
        for folder in (tmp_path / "checkpoint-1", tmp_path / "checkpoint-2"):
            assert set(load_file(folder / "model.safetensors")) == set(trainer.model.state_dict())

    def test_evaluation_before_training_is_the_same_as_without_a_teacher(self, tmp_path):
        """Prevents an eval_loss that can't be compared with the control's."""
        student = tiny_bert(2)
        with_teacher = trainer_of(tmp_path, pair_rows(20), teacher=tiny_bert(4), model=student).evaluate()
        without = trainer_of(tmp_path, pair_rows(20), model=student, alpha=0).evaluate()
        assert with_teacher["eval_loss"] == pytest.approx(without["eval_loss"], rel=1e-6)


class TestLabels:
    """Rows with and without one."""

    def test_rows_without_a_label_train_on_the_soft_target_alone(self, tmp_path):
        """Prevents unlabelled rows that weigh nothing, or that are taken for a class."""
        teacher = tiny_bert(4, seed=9)
        weights = {}
        for name, rows, alpha in (
            ("no column", pair_rows(32).remove_columns("labels"), 0.3),
            ("all -100", pair_rows(32, unlabelled=32), 0.3),
            ("alpha 1", pair_rows(32), 1.0),
        ):
            trainer = trainer_of(tmp_path, rows, teacher=teacher, model=without_dropout(), alpha=alpha)
            trainer.train()
            weights[name] = flat_weights(trainer.model)
        assert torch.equal(weights["no column"], weights["alpha 1"])
        assert torch.equal(weights["all -100"], weights["alpha 1"])

    def test_regression_learns_the_teachers_number(self, tmp_path):
        """Prevents a soft loss of zero: the softmax over one output is constant."""
        teacher = tiny_bert(4, num_labels=1, seed=9)
        trainer = trainer_of(tmp_path, pair_rows(32, num_labels=1), teacher=teacher, alpha=1.0)
        trainer.train()
        losses = [entry["soft_loss"] for entry in trainer.state.log_history if "soft_loss" in entry]
        assert losses[0] > losses[-1] > 0

    def test_labels_in_another_order_are_matched_by_name_and_it_says_so(self, tmp_path, caplog):
        """Prevents a student that says yes where its teacher says no."""
        names = ["entailment", "neutral", "contradiction"]
        student = tiny_bert(2, num_labels=3, id2label=dict(enumerate(names)))
        teacher = tiny_bert(4, num_labels=3, seed=9, id2label=dict(enumerate(reversed(names))))
        rows = pair_rows(8, num_labels=3)
        with caplog.at_level(logging.WARNING, logger="distilbert_kd"):
            trainer = trainer_of(tmp_path, rows, teacher=teacher, model=student)
        batch = collator()([rows[i] for i in range(8)])
        expected = teacher(**{k: v for k, v in batch.items() if k != "labels"}).logits.flip(-1)
        torch.testing.assert_close(trainer._teacher_logits(dict(batch)), expected)
        assert "another order" in caplog.text

    def test_the_names_of_the_teachers_outputs_can_be_given(self, tmp_path):
        """Prevents teachers that nobody named from being useless."""
        student = tiny_bert(2, id2label={0: "no", 1: "yes"})
        trainer = trainer_of(tmp_path, pair_rows(8), teacher=tiny_bert(4), model=student, teacher_labels=["yes", "no"])
        assert trainer._teacher_order.tolist() == [1, 0]


REFUSED = {
    "no teacher": (RecipeError, {"alpha": 0.5}, "neither teacher"),
    "another number of outputs": (TeacherError, {"teacher": tiny_bert(4, num_labels=1)}, "outputs"),
    "label names": (TeacherError, {"teacher": tiny_bert(4, id2label={0: "cat", 1: "dog"})}, "labels"),
    "a smaller vocabulary": (TeacherError, {"teacher": tiny_bert(4, vocab_size=100)}, "100"),
    "label smoothing": (
        RecipeError,
        {"training": {"label_smoothing_factor": 0.1}, "alpha": 0},
        "label_smoothing_factor",
    ),
    "own loss": (RecipeError, {"compute_loss_func": lambda *a, **k: 0, "alpha": 0}, "compute_loss_func"),
    "average per device": (
        RecipeError,
        {"training": {"average_tokens_across_devices": False}, "alpha": 0},
        "average_tokens_across_devices",
    ),
    "another name for the labels": (RecipeError, {"training": {"label_names": ["target"]}, "alpha": 0}, "label_names"),
    "two teachers": (
        RecipeError,
        {"teacher": tiny_bert(4), "rows": pair_rows(8).add_column("teacher_logits", [[0.1, 0.2]] * 8)},
        "beside a column",
    ),
    "names of no teacher": (RecipeError, {"teacher_labels": ["a", "b"], "alpha": 0}, "teacher_labels"),
    "a tokenizer with nothing to compare": (
        RecipeError,
        {"teacher": tiny_bert(4), "teacher_processing_class": tiny_tokenizer()},
        "teacher_processing_class",
    ),
    "rows of a list without labels": (DataError, {"rows": [{"input_ids": [2, 3]}], "alpha": 0}, "nothing to learn"),
    "alpha out of range": (ValueError, {"alpha": 1.5}, "alpha"),
    "temperature of zero": (ValueError, {"temperature": 0.0}, "temperature"),
    "a label out of range": (DataError, {"rows": pair_rows(8, num_labels=5), "alpha": 0}, "class from 0 to 1"),
    "labels nowhere": (DataError, {"rows": pair_rows(8, unlabelled=8), "alpha": 0}, "-100"),
    "no label column": (DataError, {"rows": pair_rows(8).remove_columns("labels"), "alpha": 0}, "labels"),
    "logits of another width": (
        DataError,
        {"rows": pair_rows(8).add_column("teacher_logits", [[0.1, 0.2, 0.3]] * 8)},
        "teacher_logits",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_the_first_step(tmp_path, case):
    """Prevents runs that train on something else than was meant, at a plausible loss."""
    error, settings, message = REFUSED[case]
    settings = dict(settings)
    with pytest.raises(error, match=message):
        trainer_of(tmp_path, settings.pop("rows", pair_rows(8)), model=tiny_bert(2), **settings)


def test_a_teacher_that_is_the_student_is_refused(tmp_path):
    """Prevents a student that is frozen with its teacher."""
    model = tiny_bert(2)
    with pytest.raises(TeacherError, match="share"):
        trainer_of(tmp_path, pair_rows(8), teacher=model, model=model)


def test_another_tokenizer_is_refused(tmp_path):
    """Prevents texts that mean one thing to the student and another to the teacher."""
    from transformers import PreTrainedTokenizerFast

    mine, theirs = tiny_tokenizer(), tiny_tokenizer()
    backend = theirs.backend_tokenizer
    backend.normalizer = None
    other = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    with pytest.raises(TeacherError, match="normalizer"):
        trainer_of(
            tmp_path,
            pair_rows(8),
            teacher=tiny_bert(4),
            model=tiny_bert(2),
            processing_class=mine,
            teacher_processing_class=other,
        )


def test_labels_of_an_unlabelled_test_split_are_refused_with_advice(tmp_path):
    """Prevents GLUE's -1 from ending in an index error in the middle of a prediction."""
    rows = pair_rows(8).remove_columns("labels").add_column("labels", [-1] * 8)
    with pytest.raises(DataError, match="class from 0 to 1"):
        trainer_of(tmp_path, pair_rows(8), teacher=tiny_bert(4)).predict(rows)


class TestLogs:
    """What is logged is what was trained on."""

    def test_the_terms_make_up_the_loss(self, tmp_path):
        """Prevents logged terms that don't add up."""
        trainer = trainer_of(tmp_path, pair_rows(48), teacher=tiny_bert(4), alpha=0.3, training={"batch_size": 16})
        trainer.train()
        entries = [entry for entry in trainer.state.log_history if "loss" in entry]
        assert len(entries) == 6
        for entry in entries:
            assert entry["loss"] == pytest.approx(0.7 * entry["hard_loss"] + 0.3 * entry["soft_loss"], rel=1e-5)

    def test_schedules_move_alpha_and_temperature(self, tmp_path):
        """Prevents a schedule that is accepted and not followed."""
        trainer = trainer_of(
            tmp_path,
            pair_rows(64),
            teacher=tiny_bert(4),
            alpha=Schedule(1.0, 0.0),
            temperature=Schedule(4.0, 1.0, "cosine"),
            training={"batch_size": 16, "num_train_epochs": 1},
        )
        trainer.train()
        entries = [entry for entry in trainer.state.log_history if "loss" in entry]
        assert [entry["alpha"] for entry in entries] == pytest.approx([1, 2 / 3, 1 / 3, 0])
        assert [entry["temperature"] for entry in entries] == pytest.approx([4.0, 3.25, 1.75, 1.0])
        for entry in entries:
            mixed = (1 - entry["alpha"]) * entry["hard_loss"] + entry["alpha"] * entry["soft_loss"]
            assert entry["loss"] == pytest.approx(mixed, rel=1e-5)

    def test_a_loss_that_is_not_finite_stops_the_training(self, tmp_path):
        """Prevents the stock outcome: exit code 0, a logged loss of 0, and every weight NaN."""
        teacher = tiny_bert(4)
        with torch.no_grad():
            teacher.classifier.bias.fill_(float("nan"))
        trainer = trainer_of(
            tmp_path, pair_rows(32), teacher=teacher, model=tiny_bert(2), training={"save_strategy": "epoch"}
        )
        with pytest.raises(DivergedError, match="step 1"):
            trainer.train()
        assert not (tmp_path / "checkpoint-1").exists()

    def test_weights_that_are_not_finite_are_not_saved(self, tmp_path):
        """Prevents a broken student from taking the place of a good one."""
        trainer = trainer_of(tmp_path, pair_rows(8), alpha=0)
        with torch.no_grad():
            trainer.model.classifier.bias.fill_(float("inf"))
        with pytest.raises(DivergedError, match="classifier.bias"):
            trainer.save_model(str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("value", [0.0, float("nan")])
    def test_weights_that_are_in_shards_are_looked_at_as_they_are_saved(self, tmp_path, monkeypatch, value):
        """Prevents a student of NaN from a training under ZeRO 3, which leaves each process with empty weights."""
        trainer = trainer_of(tmp_path, pair_rows(8), alpha=0)
        gathered = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
        gathered["classifier.bias"][1] = value
        for weight in trainer.model.parameters():
            weight.data = torch.empty(0)
        engine = SimpleNamespace(config={"zero_optimization": {"stage": 3}}, save_checkpoint=lambda: None)
        monkeypatch.setattr(trainer, "is_deepspeed_enabled", True)
        monkeypatch.setattr(trainer, "deepspeed", engine)
        monkeypatch.setattr(trainer, "model_wrapped", engine)
        monkeypatch.setattr(trainer.accelerator, "get_state_dict", lambda model: gathered)
        if value == 0:
            trainer.save_model(str(tmp_path / "out"))
            assert load_file(tmp_path / "out" / "model.safetensors")["classifier.bias"][1] == 0
            return
        with pytest.raises(DivergedError, match="NaN or infinity in classifier.bias"):
            trainer.save_model(str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    def test_the_evaluation_loss_is_a_mean_over_rows(self, tmp_path):
        """Prevents a loss of NaN where a batch has no label, and batches that weigh by rows without one."""
        student, rows = tiny_bert(2), pair_rows(37, unlabelled=7)
        trainer = trainer_of(tmp_path, rows, model=student, alpha=0, training={"per_device_eval_batch_size": 16})
        logits = torch.as_tensor(trainer.predict(rows).predictions)
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(rows["labels"][:])).item()
        assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-6)

    def test_rows_without_any_label_have_no_evaluation_loss(self, tmp_path):
        """Prevents a loss of 0, which would be the best checkpoint ever."""
        teacher = tiny_bert(4)
        trainer = trainer_of(tmp_path, pair_rows(8), teacher=teacher)
        assert "eval_loss" not in trainer.evaluate(pair_rows(8, unlabelled=8))

    def test_separate_batches_of_predictions_are_left_to_trainer(self, tmp_path):
        """Prevents eval_do_concat_batches=False from ending in an error."""
        training = {"eval_do_concat_batches": False, "per_device_eval_batch_size": 4}
        trainer = trainer_of(tmp_path, pair_rows(9), model=tiny_bert(2), alpha=0, training=training)
        assert trainer.evaluate()["eval_loss"] > 0

    def test_each_training_starts_its_means_anew(self, tmp_path):
        """Prevents rows of one training, or of a batch that did not fit, from counting in the next."""
        trainer = trainer_of(tmp_path, pair_rows(32), teacher=tiny_bert(4), training={"logging_steps": 100})
        trainer.train()
        trainer.args.logging_steps = trainer.state.logging_steps = 1
        trainer.train()
        first = next(entry for entry in trainer.state.log_history if "loss" in entry)
        assert first["loss"] == pytest.approx(0.5 * first["hard_loss"] + 0.5 * first["soft_loss"], rel=1e-5)

    def test_broken_weights_at_the_end_are_an_error(self, tmp_path):
        """Prevents a training whose last step broke the weights from ending well: no line is logged after it."""
        trainer = trainer_of(tmp_path, pair_rows(16), model=tiny_bert(2), alpha=0, training={"logging_strategy": "no"})

        class Break(TrainerCallback):
            def on_train_end(self, args, state, control, model=None, **kwargs):
                with torch.no_grad():
                    model.classifier.bias.fill_(float("nan"))

        trainer.add_callback(Break())
        with pytest.raises(DivergedError, match="classifier.bias"):
            trainer.train()

    def test_an_infinite_gradient_is_the_scalers_business_under_fp16(self, tmp_path):
        """Prevents fp16 trainings from being stopped while the scaler looks for its scale."""
        trainer = trainer_of(tmp_path, pair_rows(16), model=tiny_bert(2), alpha=0)
        with pytest.raises(DivergedError, match="grad_norm"):
            trainer.log({"loss": 1.0, "grad_norm": float("inf")})
        trainer.accelerator.scaler = object()
        trainer.log({"loss": 1.0, "grad_norm": float("inf")})


class TestTrainerGoesOnWorking:
    """Everything that Trainer does."""

    def test_predictions_stand_in_the_order_of_the_rows(self, tmp_path):
        """Prevents submissions with shuffled rows, as the stock group_by_length gives them."""
        rows = pair_rows(30)
        trainer = trainer_of(
            tmp_path,
            rows,
            teacher=tiny_bert(4),
            training={"train_sampling_strategy": "group_by_length", "per_device_eval_batch_size": 4},
        )
        predictions = trainer.predict(rows).predictions
        with torch.no_grad():
            alone = [trainer.model(**collator()([rows[i]])).logits[0].numpy() for i in range(30)]
        np.testing.assert_allclose(predictions, alone, atol=1e-5)

    @pytest.mark.parametrize("stop_at", [2, 3, 5])
    @pytest.mark.parametrize("strategy", ["random", "group_by_length"])
    def test_a_resumed_training_ends_with_the_same_bits(self, tmp_path, stop_at, strategy):
        """Prevents a resume, in the middle of an epoch or between two, that repeats or skips rows."""

        def make(folder):
            teacher = tiny_bert(4, seed=9)
            training = {
                "batch_size": 16,
                "save_strategy": "steps",
                "save_steps": 1,
                "train_sampling_strategy": strategy,
            }
            model = tiny_bert(2, seed=1)  # with dropout
            return trainer_of(folder, pair_rows(45), teacher=teacher, model=model, training=training)

        whole = make(tmp_path / "whole")
        whole.train()
        stopped = make(tmp_path / "stopped")

        class Stop(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                control.should_training_stop = state.global_step == stop_at
                return control

        stopped.add_callback(Stop)
        stopped.train()
        resumed = make(tmp_path / "stopped")
        resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / f"checkpoint-{stop_at}"))
        assert resumed.state.global_step == whole.state.global_step == 6
        assert torch.equal(flat_weights(whole.model), flat_weights(resumed.model))

    def test_callbacks_get_the_terms(self, tmp_path):
        """Prevents trackers, which are callbacks, from missing the terms."""
        seen = []

        class Watch(TrainerCallback):
            def on_log(self, args, state, control, logs=None, **kwargs):
                seen.append(set(logs))

        trainer = trainer_of(tmp_path, pair_rows(16), teacher=tiny_bert(4), callbacks=[Watch()])
        trainer.train()
        assert {"loss", "hard_loss", "soft_loss"} <= seen[0]

    @staticmethod
    def searcher(tmp_path):
        pytest.importorskip("optuna")
        return quiet(
            DistillationTrainer(
                model_init=lambda trial=None: tiny_bert(2, seed=1),
                args=arguments(tmp_path, 16, eval_strategy="epoch"),
                train_dataset=pair_rows(32),
                eval_dataset=pair_rows(32),
                data_collator=collator(),
                teacher=tiny_bert(4, seed=9),
            )
        )

    def test_hyperparameter_search_runs_each_trial_with_the_teacher(self, tmp_path):
        """Prevents a search whose trials lose the teacher with the accelerator that is rebuilt for each."""
        best = self.searcher(tmp_path).hyperparameter_search(
            hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)},
            compute_objective=lambda metrics: metrics["eval_loss"],
            n_trials=2,
            direction="minimize",
        )
        assert 1e-5 <= best.hyperparameters["learning_rate"] <= 1e-2

    def test_a_trial_that_diverges_does_not_end_the_search(self, tmp_path):
        """Prevents a search that is lost by one learning rate too many."""
        optuna = pytest.importorskip("optuna")
        best = self.searcher(tmp_path).hyperparameter_search(
            hp_space=lambda trial: {"learning_rate": trial.suggest_categorical("learning_rate", [1e38, 1e-3])},
            compute_objective=lambda metrics: metrics["eval_loss"],
            n_trials=2,
            direction="minimize",
            sampler=optuna.samplers.GridSampler({"learning_rate": [1e38, 1e-3]}, seed=0),  # each is tried
        )
        assert best.hyperparameters["learning_rate"] == 1e-3

    @pytest.mark.filterwarnings("ignore:Cannot enable progress bars:UserWarning")  # the tests switch them off for good
    def test_push_to_hub_uploads_the_student_alone(self, tmp_path, monkeypatch):
        """Prevents a teacher on the Hub."""
        uploads = []

        class Hub:
            def create_repo(self, repo_id, **kwargs):
                return SimpleNamespace(repo_id=repo_id)

            def upload_folder(self, folder_path, **kwargs):
                uploads.append(set(load_file(Path(folder_path) / "model.safetensors")))
                return SimpleNamespace(done=lambda: True, result=lambda: None)

        monkeypatch.setattr("transformers.trainer.hf_api", lambda *a, **k: Hub())
        trainer = trainer_of(
            tmp_path,
            pair_rows(16),
            teacher=tiny_bert(4),
            training={"push_to_hub": True, "hub_model_id": "me/student", "hub_strategy": "end"},
        )
        trainer.train()
        trainer.push_to_hub()
        assert uploads
        assert all(names == set(trainer.model.state_dict()) for names in uploads)

    def test_torch_compile_trains_the_same_student(self, tmp_path):
        """Prevents a compiled student that gets other inputs than a plain one."""
        weights = []
        for settings in ({}, {"torch_compile": True, "torch_compile_backend": "eager"}):
            trainer = trainer_of(
                tmp_path, pair_rows(32), teacher=tiny_bert(4, seed=9), model=without_dropout(), training=settings
            )
            trainer.train()
            weights.append(flat_weights(trainer.model))
        torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)

    def test_torch_compile_compiles_twice_at_most_for_all_lengths(self, tmp_path):
        """Prevents a compilation for each length of a batch: the first is static, the second dynamic."""
        from torch._dynamo.utils import counters

        torch._dynamo.reset()
        counters.clear()
        training = {"torch_compile": True, "torch_compile_backend": "eager", "batch_size": 4}
        rows = pair_rows(64)
        trainer = trainer_of(
            tmp_path,
            rows,
            teacher=tiny_bert(4, seed=9),
            model=without_dropout(),
            training={**training, "train_sampling_strategy": "group_by_length"},
        )
        trainer.train()
        assert len({len(ids) for ids in rows["input_ids"]}) > 5
        assert counters["stats"]["unique_graphs"] <= 2

    def test_bf16_autocast_reaches_the_teacher_and_not_the_loss(self, tmp_path):
        """Prevents a softmax in half precision."""
        teacher, dtypes = tiny_bert(4), []
        teacher.classifier.register_forward_hook(lambda module, args, output: dtypes.append(output.dtype))
        trainer = trainer_of(tmp_path, pair_rows(16), teacher=teacher, training={"bf16": True})
        trainer.train()
        assert set(dtypes) == {torch.bfloat16}
        assert all(np.isfinite(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry)


def test_a_data_set_of_no_known_length_is_left_to_trainer(tmp_path):
    """Prevents streamed rows from being refused."""
    rows = datasets.IterableDataset.from_generator(lambda: iter(pair_rows(40)))
    trainer = trainer_of(tmp_path, rows, teacher=tiny_bert(4), training={"max_steps": 2})
    assert trainer.train().global_step == 2
