"""The Trainer that distils.

    L = (1 - alpha) * L_hard(T = 1) + alpha * T^2 * KL(teacher_T || student_T) + sum_k weight_k * L_k

as a mean over the rows of one optimizer step: all of them, whichever rank and accumulation step holds them.
Augmented rows have an alpha of their own. The formulas are in `distilbert_kd.losses`, the deeper terms L_k in
`distilbert_kd.deep_terms`; this module brings them together with `transformers.Trainer`.
"""

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Sampler, SequentialSampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_pt_utils import BatchRebalanceSampler
from transformers.trainer_utils import EvalLoopOutput, has_length

from distilbert_kd import first_position
from distilbert_kd.compatibility import check_same_tokenizer, check_teacher, label_names, output_order
from distilbert_kd.data.task_data import IS_AUGMENTED
from distilbert_kd.deep_terms import DeepTerms, TermLike, checked_terms
from distilbert_kd.errors import DataError, RecipeError
from distilbert_kd.length_grouping import WINDOW, LengthGroupedBatchSampler, row_lengths
from distilbert_kd.losses.logits import hard_loss, has_label, mix, soft_loss
from distilbert_kd.losses.schedule import Schedule, as_schedule
from distilbert_kd.row_checks import TEACHER_LOGITS, check_rows, first_row_names
from distilbert_kd.sampling import FILLER, shared_loader
from distilbert_kd.sharding import spread_teacher
from distilbert_kd.step_mean_trainer import StepMeanTrainer
from distilbert_kd.trainer_options import refuse_ignored_options


__all__ = ["DistillationTrainer"]

logger = logging.getLogger(__name__)


class DistillationTrainer(StepMeanTrainer):
    """A `transformers.Trainer` whose student learns from labels and from a teacher's distribution.

    Loss of a row: `(1 - alpha) * L_hard + alpha * T^2 * KL(teacher_T || student_T)`, L_hard at T = 1; with one output
    (regression) squared errors to the label and to the teacher's output. A row without a label (no `labels` column, or
    -100) trains on the teacher alone. A row that a column `is_augmented` marks has `alpha_augmented` in the place of
    alpha. The loss of a step is the mean over its rows, `1/n sum_i [(1 - a_i) * L_hard,i + a_i * T^2 * KL_i]`, so
    loss, gradients and weights do not depend on how the rows are split over accumulation steps and processes, and the
    last, partial batch is shared by the processes without repeating a row.

    The teacher's outputs come from `teacher`, or from a column `teacher_logits` of the training set. The teacher is
    frozen and in eval mode; it is never saved, optimised or wrapped, and evaluation and prediction don't ask it:
    `eval_loss` is L_hard, which compares with a student that had no teacher. Without teacher and with `alpha=0` this
    is a plain Trainer with the right gradient accumulation.

    `terms` adds deeper signals: hidden states, attention, relations (see `distilbert_kd.deep_terms`), each a mean over
    the tokens of a row. They need the teacher itself, and all positions of the last layer.

    Logged: `loss`, `hard_loss`, `soft_loss` (T^2 included, before alpha) and each deeper term by its name (before its
    weight), each a mean over its rows since the last line, of all processes and accumulation steps; `alpha` and
    `temperature` when they follow a schedule.

    Source: Hinton et al. 2015, https://arxiv.org/abs/1503.02531; the Trainer's contract is `compute_loss` and
    `loss_is_scaled_for_ga` in transformers/trainer.py (5.19 and later).
    """

    def __init__(
        self,
        *args: Any,
        teacher: PreTrainedModel | None = None,
        temperature: float | Schedule = 2.0,
        alpha: float | Schedule = 0.5,
        alpha_augmented: float = 1.0,
        terms: Mapping[str, TermLike] | None = None,
        teacher_labels: Sequence[str] | None = None,
        teacher_processing_class: PreTrainedTokenizerBase | None = None,
        length_window: int = WINDOW,
        first_position_only: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Takes what `Trainer` takes, and refuses before the first step what could not be right.

        Args:
            *args: as `Trainer`.
            teacher: a fine-tuned classifier; it is frozen and moved to the training device.
            temperature: T > 0, or a `Schedule` over training.
            alpha: weight of the soft target in [0, 1], or a `Schedule`.
            alpha_augmented: the same for the rows whose column `is_augmented` is true: altered copies, whose labels
                are doubtful. 1: they learn from the teacher alone. Without soft targets it is not used.
            terms: deeper terms by name, with their weights, or as in a recipe: `{"weight": 1.0, "layers": "last"}`.
                The student gets projections while it is trained if its width is not the teacher's; `save_model` leaves
                them out.
            teacher_labels: names of the teacher's outputs in their order, when its config does not name them.
            teacher_processing_class: the teacher's tokenizer, to be compared with `processing_class`.
            length_window: batches that are sorted together under `train_sampling_strategy="group_by_length"`.
            first_position_only: whether the last layer is computed for the first position alone, where the head reads
                no other (see `distilbert_kd.first_position`): the same logits and gradients, but other dropout draws.
                None: where there are soft targets, so that without any this is the plain Trainer to the bit. Off under
                DataParallel, FSDP and DeepSpeed.
            **kwargs: as `Trainer`.

        Raises:
            TeacherError: teacher and student do not fit (see `distilbert_kd.compatibility`).
            DataError: labels out of range, rows without any target, teacher logits of another width.
            RecipeError: an argument that would be ignored, or alpha without a teacher.
            ValueError: alpha or temperature out of range.
        """
        self.temperature = as_schedule(temperature, "temperature", minimum=0.01)
        self.alpha = as_schedule(alpha, "alpha", minimum=0.0, maximum=1.0)
        self.alpha_augmented = as_schedule(alpha_augmented, "alpha_augmented", minimum=0.0, maximum=1.0)
        self.length_window = length_window
        deep_terms = checked_terms(terms or {})
        self.is_loss_beyond_outputs = bool(deep_terms)  # their projections
        super().__init__(*args, **kwargs)
        refuse_ignored_options(self, teacher, teacher_labels, teacher_processing_class, deep_terms)
        self.teacher = teacher
        self._teacher_order: Tensor | None = None
        self._student_arguments = _forward_arguments(self.model)
        self._teacher_arguments: frozenset[str] = frozenset()
        if teacher is not None:
            self._take_on_teacher(teacher, teacher_labels, teacher_processing_class)
        self.deep_terms = DeepTerms(self.model, teacher, deep_terms) if teacher is not None and deep_terms else None
        self._rows_are_marked = IS_AUGMENTED in first_row_names(self.train_dataset)
        self._rows_have_soft_targets = check_rows(self.train_dataset, self.model.config, teacher is not None)
        is_first_only = self._rows_have_soft_targets if first_position_only is None else first_position_only
        # Replicas of DataParallel, and layers that FSDP or DeepSpeed took apart, are not the layers that we know.
        is_first_only &= self.args.n_gpu <= 1 and not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
        is_first_only &= not self.deep_terms  # they read all positions
        self._last_layer: Callable[[nn.Module], AbstractContextManager] = (
            first_position.first_position_only if is_first_only else nullcontext
        )
        if self.train_dataset is not None and not self._rows_have_soft_targets and self.alpha != Schedule(0.0, 0.0):
            raise RecipeError(
                f"Expected a teacher for alpha={alpha}, got neither teacher=... nor a column {TEACHER_LOGITS!r} in "
                "the training set. Give one, or set alpha=0 to train on the labels alone."
            )

    def _take_on_teacher(
        self, teacher: PreTrainedModel, labels: Sequence[str] | None, tokenizer: PreTrainedTokenizerBase | None
    ) -> None:
        check_teacher(self.model, teacher)
        if tokenizer is not None and isinstance(self.processing_class, PreTrainedTokenizerBase):
            check_same_tokenizer(self.processing_class, tokenizer)
        if not _is_regression(self.model):
            given = label_names(teacher.config) if labels is None else labels
            order = output_order(label_names(self.model.config), given)
            if order is not None:
                self._teacher_order = torch.tensor(order, device=self.args.device)
                logger.warning("The teacher's labels stand in another order; its outputs are taken as %s.", order)
        self._teacher_arguments = _forward_arguments(teacher)
        self._teacher_here = spread_teacher(self.accelerator, self.args, teacher.requires_grad_(False).eval())

    # Columns: the union of what both models take reaches the collator, and each model gets its own.

    def _set_signature_columns_if_needed(self) -> None:
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            wanted = [TEACHER_LOGITS, IS_AUGMENTED, *sorted(self._teacher_arguments)]
            columns: Any = self._signature_columns  # Trainer declares the attribute as None
            columns += [name for name in wanted if name not in columns]

    def _student_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in inputs.items() if name in self._student_arguments and name != "labels"}

    # Rows: see distilbert_kd.sampling.

    def get_train_dataloader(self) -> DataLoader:
        """The training data: the rows of a step shared by the processes, each row once.

        A data set without a length, and `train_sampling_strategy="batch_rebalance"`, which shares the rows itself, are
        left to `Trainer`.

        Returns:
            A loader of this process's batches, the same number on every process.
        """
        if self.train_dataset is None or isinstance(self.train_dataset, IterableDataset):
            return super().get_train_dataloader()
        batches = self._global_batches()
        if batches is None:
            return super().get_train_dataloader()
        dataset, collator = self._training_columns()
        return shared_loader(dataset, batches, collator, self.args, self.accelerator)

    def _global_batches(self) -> BatchSampler | None:
        """Batches of the rows of all processes; None where Trainer has to share them itself."""
        args = self.args
        batch_size = self._train_batch_size * self.accelerator.num_processes
        if args.train_sampling_strategy == "group_by_length":
            lengths = row_lengths(self.train_dataset, args.length_column_name)
            seed = args.seed if args.data_seed is None else args.data_seed
            return LengthGroupedBatchSampler(lengths, batch_size, seed, args.dataloader_drop_last, self.length_window)
        sampler = self._get_train_sampler(self.train_dataset)
        if sampler is None or isinstance(sampler, BatchRebalanceSampler):
            return None
        return BatchSampler(sampler, batch_size, args.dataloader_drop_last)

    def _training_columns(self) -> tuple[Any, Any]:
        if hasattr(self.train_dataset, "column_names"):
            return self._remove_unused_columns(self.train_dataset, description="Training"), self.data_collator
        return self.train_dataset, self._get_collator_with_removed_columns(self.data_collator, description="Training")

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        """The batches of one optimizer step, and the number of their rows that have a target, on all processes.

        Args:
            epoch_iterator: gives batches.
            num_batches: of one step.
            device: of the count.

        Returns:
            At most `num_batches` batches of this process, and a count of at least 1.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        num_rows = sum((self._counted_rows(batch).sum() for batch in batches), torch.zeros((), dtype=torch.long))
        return batches, self.accelerator.reduce(num_rows.to(device), "sum").clamp(min=1)

    def _counted_rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Which rows of a batch have a target: (B,), bool."""
        rows = torch.ones(len(batch["input_ids"]), dtype=torch.bool, device=batch["input_ids"].device)
        if FILLER in batch:
            return ~rows
        return rows if self._rows_have_soft_targets else has_label(batch["labels"])

    # Loss.

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The objective of a training batch, or L_hard of an evaluation batch.

        Args:
            model: the student, as Trainer wrapped it.
            inputs: the columns that either model takes, `labels` (B,), `teacher_logits` (B, C) and `is_augmented`
                (B,) where there are any.
            return_outputs: whether the student's outputs are wanted, too.
            num_items_in_batch: the rows of the whole optimizer step; this batch's own when not given.

        Returns:
            A number: in training, the sum over the batch's rows / `num_items_in_batch` * processes (they average
            gradients); in evaluation, the mean over the rows that have a label.

        Raises:
            ValueError: the student's logits are not of shape (B, C), or not of the teacher's.
            DataError: the training set marks augmented rows and the batch, as collated, doesn't.
        """
        if model.training and self.deep_terms:
            with self.deep_terms.listening():
                return self._loss(model, inputs, return_outputs, num_items_in_batch)
        return self._loss(model, inputs, return_outputs, num_items_in_batch)

    def _loss(
        self, model: nn.Module, inputs: Mapping[str, Any], return_outputs: bool, num_rows: Tensor | int | None
    ) -> Tensor | tuple[Tensor, Any]:
        with self._last_layer(self.model):
            outputs = model(**self._student_inputs(inputs))
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        if logits.dim() != 2:
            raise ValueError(
                f"Expected logits of shape (rows, outputs), got {tuple(logits.shape)} from {type(model)}."
            )
        labels = inputs.get("labels")
        if labels is None:
            labels = torch.full((len(logits),), -100, device=logits.device)
        loss = (
            self._objective(logits, labels, inputs, num_rows)
            if model.training
            else hard_loss(logits, labels).sum() / has_label(labels).sum().clamp(min=1)
        )
        if not return_outputs:
            return loss
        return loss, outputs if isinstance(outputs, dict) else (loss, *outputs)

    def _objective(
        self, logits: Tensor, labels: Tensor, inputs: Mapping[str, Any], num_rows: Tensor | int | None
    ) -> Tensor:
        counted = self._counted_rows(inputs)
        labelled = has_label(labels)
        rows = hard = hard_loss(logits, labels)
        self.term_means.add("hard_loss", hard, labelled)
        if self._rows_have_soft_targets:
            soft = soft_loss(logits, self._teacher_logits(inputs), self.temperature.at(self._progress))
            self.term_means.add("soft_loss", soft, counted)
            rows = mix(hard, soft, labelled, self.alpha.at(self._progress))
            if self._rows_are_marked and IS_AUGMENTED not in inputs:
                raise DataError(
                    f"Expected the column {IS_AUGMENTED!r} of the training set in each batch, got {sorted(inputs)}. "
                    "Let the data collator keep it, or remove it from the training set."
                )
            if IS_AUGMENTED in inputs:  # in two mixtures, so that gold rows are what they are without the column
                augmented = mix(hard, soft, labelled, self.alpha_augmented.at(self._progress))
                rows = torch.where(inputs[IS_AUGMENTED].bool(), augmented, rows)
        if self.deep_terms:
            mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
            for name, values in self.deep_terms.row_values(mask).items():
                self.term_means.add(name, values, counted)
                rows = rows + self.deep_terms.weights[name] * values
        self.term_means.add("loss", rows, counted)
        rows = torch.where(counted, rows, torch.zeros_like(rows))
        if self.row_losses:  # not where a loss is asked for outside of a training
            self.row_losses[-1][1].append(rows.detach())
        total = rows.sum()
        return total / (counted.sum().clamp(min=1) if num_rows is None else num_rows) * self.accelerator.num_processes

    def _teacher_logits(self, inputs: Mapping[str, Any]) -> Tensor:
        if self.teacher is None:
            return inputs[TEACHER_LOGITS]
        its_own = {name: inputs[name] for name in self._teacher_arguments & inputs.keys() if name != "labels"}
        with torch.no_grad(), self.accelerator.autocast(), self._last_layer(self.teacher):
            outputs = self._teacher_here(**its_own)
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        return logits if self._teacher_order is None else logits.index_select(-1, self._teacher_order)

    @property
    def _progress(self) -> float:
        return self.state.global_step / max(self.state.max_steps - 1, 1)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """As Trainer, with the columns that only the teacher takes left out.

        Args:
            model: the student, as Trainer wrapped it.
            inputs: a batch.
            prediction_loss_only: whether only the loss is wanted.
            ignore_keys: outputs of the model that are no predictions.

        Returns:
            L_hard, the logits (B, C) and the labels (B,), each None where there is none.
        """
        kept = self._student_inputs(inputs) | {name: inputs[name] for name in self.label_names if name in inputs}
        with self._last_layer(self.model):
            return super().prediction_step(model, kept, prediction_loss_only, ignore_keys=ignore_keys)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As Trainer, with `loss` as a mean over the labelled rows, each once.

        Trainer takes a mean over batches, which counts a row twice that fills up a process's last batch, is NaN where
        a batch has no label, and weighs a batch by its rows whether they have labels or not. The logits are kept for
        it, unless `prediction_loss_only` or `eval_do_concat_batches=False` is set in the training arguments or
        `preprocess_logits_for_metrics` makes something else of them; then the loss is Trainer's.

        Args:
            dataloader: the rows, in order.
            description: for the log.
            prediction_loss_only: whether the caller wants nothing but the loss.
            ignore_keys: outputs of the model that are no predictions.
            metric_key_prefix: "eval" or "test".

        Returns:
            Logits and labels in the order of the rows, and the metrics.

        Raises:
            DataError: a label is no class of the model; drop the column to predict without labels.
        """
        check_rows(dataloader.dataset, self.model.config, has_teacher=True)
        is_kept = self.args.eval_do_concat_batches and not self.args.prediction_loss_only
        if self.preprocess_logits_for_metrics is not None or not is_kept:
            return super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        if prediction_loss_only:  # nobody asked for more than the loss, so no more than the logits is kept
            ignore_keys = [*(ignore_keys or ()), "hidden_states", "attentions"]
        output = super().evaluation_loop(dataloader, description, False, ignore_keys, metric_key_prefix)
        if output.label_ids is not None and output.metrics is not None:
            logits = output.predictions[0] if isinstance(output.predictions, tuple) else output.predictions
            labels = torch.as_tensor(output.label_ids)
            num_labelled = has_label(labels).sum()
            losses = hard_loss(torch.as_tensor(logits), labels).double()
            output.metrics.pop(f"{metric_key_prefix}_loss", None)
            if num_labelled > 0:
                output.metrics[f"{metric_key_prefix}_loss"] = (losses.sum() / num_labelled).item()
        return output

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler | None:
        """In data set order, always: `group_by_length` would reorder the rows of `predict`."""
        return SequentialSampler(eval_dataset) if has_length(eval_dataset) else None

    # Logs: see distilbert_kd.step_mean_trainer.

    def logged(self, terms: dict[str, float]) -> dict[str, float]:
        """What is logged beside Trainer's own numbers.

        Args:
            terms: the mean of each term since the last log line.

        Returns:
            The terms, and alpha and temperature where they follow a schedule.
        """
        for name, schedule in (("alpha", self.alpha), ("temperature", self.temperature)):
            if self._rows_have_soft_targets and not schedule.is_constant:
                terms[name] = schedule.at((self.state.global_step - 1) / max(self.state.max_steps - 1, 1))
        return terms


def _is_regression(model: PreTrainedModel) -> bool:
    return model.config.num_labels == 1


def _forward_arguments(model: nn.Module) -> frozenset[str]:
    return frozenset(inspect.signature(model.forward).parameters)
