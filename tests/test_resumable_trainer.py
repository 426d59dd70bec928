"""A training that is stopped, cut off, or leaves the finite numbers."""

import json
import resource
import signal

import pytest
import torch
from transformers import TrainerCallback

from distilbert_kd import DistillationTrainer, resumable_trainer
from distilbert_kd.checkpoints import newest_whole, read_commit
from distilbert_kd.errors import DivergedError, StoppedError, StorageError
from distilbert_kd.resuming import Continuation
from distilbert_kd.step_flags import StepFlags
from distilbert_kd.training import obeying_signals, run_training, save_model_folder
from tests.tiny import tiny_bert
from tests.training_rows import arguments, collator, flat_weights, pair_rows, quiet


def make(folder, num_rows=45, rows=None, callbacks=(), batch_size=16, accumulation=1, **training):
    """Two epochs of three steps, with dropout, a log line every other step and an evaluation after each epoch."""
    rows = pair_rows(num_rows) if rows is None else rows
    settings = {"logging_steps": 2, "eval_strategy": "epoch", "train_sampling_strategy": "group_by_length", **training}
    return quiet(
        DistillationTrainer(
            model=tiny_bert(1, seed=1),
            args=arguments(folder, batch_size, accumulation, **settings),
            train_dataset=rows,
            eval_dataset=pair_rows(8, seed=2),
            data_collator=collator(),
            callbacks=list(callbacks),
            alpha=0.0,
        )
    )


def history(trainer):
    """What was logged, without times."""
    timed = ("runtime", "per_second", "total_flos", "train_loss")
    return [
        {name: value for name, value in line.items() if not name.endswith(timed)} for line in trainer.state.log_history
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    trainer = make(tmp_path_factory.mktemp("whole"))
    trainer.train()
    return trainer


class TestStop:
    @pytest.mark.parametrize("stop_at", [1, 3, 5, 6])
    @pytest.mark.parametrize("strategy", ["no", "epoch"])
    def test_stops_after_the_step_and_goes_on_to_the_same_end(self, whole, tmp_path, stop_at, strategy):
        """Prevents a preempted job from losing its work, its evaluation of the epoch, or a part of its log."""
        stopped = make(tmp_path, save_strategy=strategy, save_total_limit=1)
        stopped.is_stop_wanted = lambda: stopped.state.global_step >= stop_at
        with pytest.raises(StoppedError, match=f"step {stop_at} of 6.*Start the same command again") as error:
            stopped.train()
        assert error.value.exit_code == 75
        checkpoint = newest_whole(tmp_path)
        assert checkpoint.name == f"checkpoint-{stop_at}"
        resumed = make(tmp_path, save_strategy=strategy, save_total_limit=1)
        resumed.train(resume_from_checkpoint=str(checkpoint))
        assert torch.equal(flat_weights(whole.model), flat_weights(resumed.model))
        assert history(resumed) == history(whole)

    def test_a_stop_saves_everything_even_where_only_weights_are_wanted(self, tmp_path):
        """Prevents a stop that leaves weights, from which nobody can go on."""
        trainer = make(tmp_path, save_strategy="epoch", save_only_model=True)
        trainer.is_stop_wanted = lambda: True
        with pytest.raises(StoppedError):
            trainer.train()
        assert read_commit(tmp_path / "checkpoint-1")["is_resumable"]
        assert (tmp_path / "checkpoint-1" / "optimizer.pt").is_file()

    @pytest.mark.parametrize("moment", ["on_evaluate", "on_save", "on_train_end"])
    def test_a_signal_after_the_last_step_is_obeyed_when_the_model_is_saved(self, tmp_path, moment):
        """Prevents a preempted job from going on as if untold, because the signal came in the last evaluation."""

        def tell(args, state, control, **kwargs):
            if state.global_step == 6:
                signal.raise_signal(signal.SIGTERM)

        callback = TrainerCallback()
        setattr(callback, moment, tell)
        trainer = make(tmp_path / "checkpoints", save_strategy="epoch", callbacks=[callback])
        continuation, folder = Continuation({}), tmp_path / "student"
        with (
            pytest.raises(StoppedError, match=r"the last step of 6.*saved in .*student\. Start the same") as error,
            obeying_signals(trainer, folder, continuation),
        ):
            run_training(trainer, "student", continuation)
            save_model_folder(trainer, folder, continuation)
        assert error.value.exit_code == 75
        assert (folder / "model.safetensors").is_file()


class TestResume:
    def test_a_checkpoint_that_was_just_checked_is_not_read_again(self, tmp_path, monkeypatch):
        """Prevents two reads of gigabytes before the first step, on every process."""
        make(tmp_path, save_strategy="epoch").train()
        newest = newest_whole(tmp_path)
        monkeypatch.setattr(resumable_trainer, "refuse_damaged", lambda checkpoint: pytest.fail("it was read again"))
        run_training(make(tmp_path, save_strategy="epoch"), "student", Continuation({}, newest))

    def test_the_last_step_of_an_epoch_is_saved_with_its_evaluation(self, whole, tmp_path):
        """Prevents a run that is killed after an epoch's last save from a history without that epoch's score."""
        trainer = make(tmp_path, save_strategy="steps", save_steps=3)
        trainer.train()
        state = json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text("utf-8"))
        assert sum("eval_loss" in line for line in state["log_history"]) == 1
        resumed = make(tmp_path, save_strategy="steps", save_steps=3)
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
        assert history(resumed) == history(whole)

    def test_a_training_that_was_done_does_no_further_step(self, tmp_path):
        """Prevents one step too many after a kill between the last checkpoint and the model folder."""
        settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 4}  # in the middle of an epoch
        first, again = make(tmp_path, **settings), make(tmp_path, **settings)
        first.train()
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
        assert again.state.global_step == 4
        assert torch.equal(flat_weights(first.model), flat_weights(again.model))

    def test_the_best_epoch_is_found_in_a_folder_that_was_moved(self, tmp_path):
        """Prevents the last epoch in place of the best one, because its path is no more."""
        settings = {
            "save_strategy": "epoch",
            "load_best_model_at_end": True,
            "save_total_limit": 1,
        }
        first = make(tmp_path / "first", **settings)
        first.train()
        assert first.state.best_global_step == 3  # not the last
        (tmp_path / "first").rename(tmp_path / "second")
        checkpoint = newest_whole(tmp_path / "second")
        again = make(tmp_path / "second", **settings)
        again.train(resume_from_checkpoint=str(checkpoint))
        assert torch.equal(flat_weights(first.model), flat_weights(again.model))


class TestFull:
    def test_no_room(self, tmp_path, monkeypatch):
        """Prevents a torn checkpoint and a word on `inline_container.cc` for a full disk."""
        trainer = make(tmp_path, save_strategy="epoch")
        monkeypatch.setattr("distilbert_kd.storage.shutil.disk_usage", lambda place: type("", (), {"free": 1000}))
        with pytest.raises(StorageError, match=r"the disk is full: 0\.\d+ MB are needed, 0\.00 MB are free") as error:
            trainer.train()
        assert error.value.exit_code == 4
        assert not list(tmp_path.glob("checkpoint-*"))
        assert trainer.state.global_step == 0  # found before the work

    def test_a_folder_that_is_gone(self, tmp_path):
        """Prevents a folder of one late checkpoint in the place of a run that somebody moved away."""

        class Lose(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                (tmp_path / "run").rename(tmp_path / "moved")

        trainer = make(tmp_path / "run", save_strategy="steps", save_steps=1, callbacks=[Lose()])
        with pytest.raises(StorageError, match=r"run in which this training began, got none"):
            trainer.train()
        assert [path.name for path in tmp_path.iterdir()] == ["moved"]

    def test_a_file_that_is_cut_short(self, tmp_path):
        """Prevents the previous checkpoint from being lost, and the torn one from staying, when a write fails."""

        class Limit(TrainerCallback):
            def on_epoch_end(self, args, state, control, **kwargs):
                if state.global_step == 6:  # room for the weights, none for the optimizer
                    size = (tmp_path / "checkpoint-3" / "model.safetensors").stat().st_size
                    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, before[1]))

        trainer = make(tmp_path, save_strategy="epoch", callbacks=[Limit()])
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            with pytest.raises(
                StorageError, match=r"checkpoint-6, got: a file was cut short.*MB are needed, .*MB are free"
            ):
                trainer.train()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert newest_whole(tmp_path) == tmp_path / "checkpoint-3"
        assert not (tmp_path / "checkpoint-6").exists() and not (tmp_path / "torn").exists()


class Poison(TrainerCallback):
    """Makes the gradient of one step infinite, whatever the loss says."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step - 1:
            self.hook = model.classifier.bias.register_hook(lambda gradient: gradient * float("inf"))


def broken_rows():
    """The squared error of row 17 is infinite in float32."""
    rows = pair_rows(45, num_labels=1)
    labels = rows["labels"][:]
    labels[17] = 1.0e30
    return rows.remove_columns("labels").add_column("labels", labels)


class TestNonFinite:
    @pytest.mark.parametrize("accumulation", [1, 2])
    def test_a_loss_ends_the_training_within_the_step_and_names_the_row(self, tmp_path, accumulation):
        """Prevents weights of NaN behind a logged loss of 0.0, the best run ever; and a search for the row by hand."""
        trainer = quiet(
            DistillationTrainer(
                model=tiny_bert(1, num_labels=1),
                args=arguments(
                    tmp_path, 8, accumulation, logging_steps=1000, save_strategy="steps", save_steps=1, max_steps=6
                ),
                train_dataset=broken_rows(),
                data_collator=collator(),
                alpha=0.0,
            )
        )
        with pytest.raises(
            DivergedError, match=r"NaN or infinity in hard_loss at step (\d), in training rows 17 "
        ) as e:
            trainer.train()
        step = trainer.state.global_step
        assert f"at step {step}," in str(e.value)
        assert [path.name for path in sorted(tmp_path.iterdir())] == [f"checkpoint-{i}" for i in range(1, step)]

    @pytest.mark.parametrize(
        ("labels", "where"),
        [
            ([1e30] * 45, r"in all 8 training rows of the step\."),
            ([0.5] * 2 + [1e30] * 43, r"in (all 8|training rows \d+, \d+, \d+, \d+, \d+ and [123] more \(of)"),
        ],
    )
    def test_many_broken_rows_are_counted(self, tmp_path, labels, where):
        """Prevents a search through five innocent rows when the learning rate broke the loss of all."""
        rows = pair_rows(45, num_labels=1).remove_columns("labels").add_column("labels", labels)
        trainer = quiet(
            DistillationTrainer(
                model=tiny_bert(1, num_labels=1),
                args=arguments(tmp_path, 8, 1, logging_steps=1000, save_strategy="no", max_steps=6),
                train_dataset=rows,
                data_collator=collator(),
                alpha=0.0,
            )
        )
        with pytest.raises(DivergedError, match=where):
            trainer.train()

    def test_a_gradient_ends_the_training_within_the_step(self, tmp_path):
        """Prevents weights of NaN in the next checkpoint after a gradient that overflowed behind a sound loss."""
        trainer = make(tmp_path, save_strategy="steps", save_steps=1, logging_steps=1000, callbacks=[Poison(2)])
        with pytest.raises(DivergedError, match="NaN or infinity in the gradient at step 2"):
            trainer.train()
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]

    @pytest.mark.parametrize("strategy", ["no", "epoch"])
    def test_flags_that_come_late_are_read_before_a_save_and_at_the_end(self, tmp_path, monkeypatch, strategy):
        """Prevents weights of NaN as the finished model: on CUDA, the last step's flag is read by no further step."""
        late = []

        def exchange(flags, step, *args):
            late.append(on_time(flags, step, *args))
            return late.pop(0) if len(late) > 1 else None

        on_time = StepFlags.exchange
        monkeypatch.setattr(StepFlags, "exchange", exchange)
        monkeypatch.setattr(StepFlags, "flush", lambda flags: late.pop() if late else None)
        trainer = make(tmp_path, save_strategy=strategy, logging_steps=1000, eval_strategy="no", callbacks=[Poison(6)])
        with pytest.raises(DivergedError, match="NaN or infinity in the gradient at step 6"):
            trainer.train()
        assert not (tmp_path / "checkpoint-6").exists()

    def test_a_search_goes_on(self, tmp_path):
        """Prevents one bad trial of a hyperparameter search from ending all."""
        trainer = make(tmp_path, callbacks=[Poison(2)], max_steps=3)
        trainer.hp_search_backend = "optuna"
        trainer.train()
        assert trainer.state.global_step == 3
