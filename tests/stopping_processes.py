"""Run by torchrun from test_faults: two processes get SIGTERM at different times, stop together, and go on."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import TrainerCallback

from distilbert_kd import DistillationTrainer
from distilbert_kd.errors import StoppedError
from distilbert_kd.resuming import Continuation, newest_checkpoint
from distilbert_kd.training import run_training
from tests.tiny import tiny_bert
from tests.training_rows import arguments, collator, flat_weights, pair_rows, quiet


class Slowly(TrainerCallback):
    """Steps of some milliseconds are over before a signal comes."""

    def on_step_end(self, args, state, control, **kwargs):
        time.sleep(0.02)


def make(folder, callbacks=()):
    return quiet(
        DistillationTrainer(
            model=tiny_bert(1, seed=1),
            args=arguments(folder, 8, num_train_epochs=30, logging_steps=1000, learning_rate=1e-4),
            train_dataset=pair_rows(64),
            data_collator=collator(),
            alpha=0.0,
            callbacks=list(callbacks),
        )
    )


def main() -> None:
    """Writes for each skew: the steps that both stopped at, the seconds that it took, and whether the end is equal."""
    output = Path(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda number, frame: None)  # a late one is no matter here
    whole = make(output.parent / "whole")
    state = PartialState()
    whole.train()
    found = {}
    for skew in (0.0, 0.3, 1.0):
        folder = output.parent / f"skew-{skew}"
        trainer = make(folder, [Slowly()])
        sent = 0.3 + skew * state.process_index
        threading.Timer(sent, os.kill, (os.getpid(), signal.SIGTERM)).start()
        start = time.monotonic()
        try:
            run_training(trainer, "student", Continuation({"number": 2}))
        except StoppedError:
            pass
        seconds, step = time.monotonic() - start, trainer.state.global_step
        time.sleep(skew)
        again = make(folder)
        run_training(again, "student", Continuation({"number": 2}, newest_checkpoint(folder, {"number": 2})))
        is_equal = torch.equal(flat_weights(whole.model), flat_weights(again.model))
        found[skew] = {"step": step, "seconds": seconds, "is_equal": is_equal}
    (output.parent / f"found-{state.process_index}.json").write_text(json.dumps(found), encoding="utf-8")
    state.wait_for_everyone()
    state.destroy_process_group()


if __name__ == "__main__":
    main()
