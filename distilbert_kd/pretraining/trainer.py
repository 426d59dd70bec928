"""The Trainer that distils language from unlabelled text.

    L = w_soft * T^2 * KL(teacher_T || student_T) + w_mlm * cross-entropy + sum_k w_k * L_k

Soft targets and deeper terms L_k (see `distilbert_kd.deep_terms`) are means over the tokens of one optimizer step, the
cross-entropy is a mean over its masked tokens: all of them, whichever process and accumulation step holds them, and
padding never counts. With DistilBERT's weights, 5, 2 and 1 for the cosine of the last hidden states, this is its
objective: Sanh et al. 2019, https://arxiv.org/abs/1910.01108, section 3, and the command in its code's README.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import datasets
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from distilbert_kd.deep_terms import DeepTerms, Term
from distilbert_kd.errors import RecipeError, TeacherError
from distilbert_kd.length_grouping import WINDOW, LengthGroupedBatchSampler, row_lengths
from distilbert_kd.losses.logits import has_label
from distilbert_kd.losses.vocabulary import vocabulary_losses
from distilbert_kd.pretraining.masking import EpochBatchSampler, MaskedRows, PaddingCollator, ShuffledBatchSampler
from distilbert_kd.pretraining.models import decoder_of, undecoded
from distilbert_kd.sampling import FILLER, shared_loader
from distilbert_kd.step_mean_trainer import StepMeanTrainer
from distilbert_kd.trainer_options import refuse_ignored_arguments


__all__ = ["PretrainingTrainer", "check_arguments", "check_vocabularies"]


class PretrainingTrainer(StepMeanTrainer):
    """A `transformers.Trainer` whose student learns a teacher's language.

    Both models read the same, masked tokens. The teacher is frozen and in eval mode; it is never saved, optimised or
    wrapped. Without a weight on `soft_targets` and `masked_language_model` nothing is masked, and neither model needs
    the head of a masked language model. Weights that no term reaches (a pooler; behind the relations of the last
    layer, the rest of that layer) are frozen.

    Logged: `loss` and each term before its weight, each a mean over its tokens since the last line.
    """

    is_loss_beyond_outputs = True  # the decoder is called by the loss

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        rows: datasets.Dataset,
        tokenizer: PreTrainedTokenizerBase,
        teacher: PreTrainedModel,
        soft_targets: float = 5.0,
        masked_language_model: float = 2.0,
        temperature: float = 2.0,
        masking_probability: float = 0.15,
        terms: Mapping[str, Term | float] | None = None,
    ) -> None:
        """Takes the models and the text, and refuses before the first step what could not be right.

        Args:
            model: the student.
            args: of the training.
            rows: with `input_ids`, special tokens included.
            tokenizer: of both models.
            teacher: frozen, and moved to the training device.
            soft_targets: weight of the teacher's distribution over the vocabulary.
            masked_language_model: weight of the cross-entropy of the masked tokens.
            temperature: T > 0.
            masking_probability: the share of tokens that is chosen.
            terms: deeper terms by name, with their weights or as `Term`s.

        Raises:
            RecipeError: an argument that would be ignored, several GPUs in one process, sharded weights.
            TeacherError: a head that is missing, vocabularies that differ, or a term that a model can't give.
            ValueError: a weight below 0 or not finite, or a masking probability outside of 0 and 1.
        """
        for name, weight in (("soft_targets", soft_targets), ("masked_language_model", masked_language_model)):
            if not 0 <= weight < float("inf"):
                raise ValueError(f"{name}: expected a weight of at least 0, got {weight}.")
        if not 0 < masking_probability < 1:
            raise ValueError(f"masking_probability: expected a number between 0 and 1, got {masking_probability}.")
        self.weights = {
            name: weight
            for name, weight in (("soft_targets", soft_targets), ("masked_language_model", masked_language_model))
            if weight > 0
        }
        self.temperature = temperature
        if self.weights:
            check_vocabularies(model, teacher)
        masked = MaskedRows(rows, tokenizer, masking_probability if self.weights else None, args.seed)
        super().__init__(
            model=model,
            args=args,
            train_dataset=masked,
            processing_class=tokenizer,
            data_collator=PaddingCollator(tokenizer.pad_token_id or 0),
        )
        check_arguments(self.args)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise RecipeError("Expected DDP or one process, got FSDP or DeepSpeed, which take the layers apart.")
        self.teacher = teacher.requires_grad_(False).eval()
        self.teacher.to(self.args.device)
        self.deep_terms = DeepTerms(self.model, teacher, terms or {})
        self.weights |= self.deep_terms.weights
        self.num_frozen = self._freeze_what_no_term_reaches()

    def _freeze_what_no_term_reaches(self) -> int:
        """DDP waits for the gradient of each weight that asks for one; which get one is found by asking."""
        batch = self._prepare_inputs(self.data_collator([self.train_dataset[0]]))  # type: ignore[index]
        trained = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        self.model.eval()
        loss = sum(self.weights[name] * values.sum() for name, (values, _) in self._terms(self.model, batch).items())
        if not getattr(loss, "requires_grad", False):
            raise RecipeError(
                f"Expected a term that reaches weights which are trained, got {', '.join(self.weights)}, whose layers "
                "are all frozen. Choose other layers, or set student.freeze_embeddings to false."
            )
        gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)  # type: ignore[arg-type]
        unreached = [weight for weight, gradient in zip(trained.values(), gradients, strict=True) if gradient is None]
        for weight in unreached:
            weight.requires_grad_(False)
        return sum(weight.numel() for weight in unreached)

    # Rows: see distilbert_kd.sampling and distilbert_kd.pretraining.masking.

    def get_train_dataloader(self) -> DataLoader:
        """The rows of a step, shared by the processes, each row once; each epoch in an order of its own.

        Returns:
            A loader of this process's batches, the same number on every process.
        """
        args = self.args
        batch_size = self._train_batch_size * self.accelerator.num_processes
        rows: MaskedRows = self.train_dataset  # type: ignore[assignment]
        batches: BatchSampler
        if args.train_sampling_strategy == "group_by_length":
            batches = LengthGroupedBatchSampler(
                row_lengths(rows.rows), batch_size, args.seed, args.dataloader_drop_last, WINDOW
            )
        else:
            batches = ShuffledBatchSampler(len(rows), batch_size, args.seed, args.dataloader_drop_last)
        return shared_loader(rows, EpochBatchSampler(batches, len(rows)), self.data_collator, args, self.accelerator)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        """The batches of one optimizer step, and what they hold on all processes.

        Args:
            epoch_iterator: gives batches.
            num_batches: of one step.
            device: of the counts.

        Returns:
            At most `num_batches` batches of this process; the numbers of tokens, masked tokens and rows, each at
            least 1: (3,).
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = sum((_counts(batch).to(device) for batch in batches), torch.zeros(3, dtype=torch.long, device=device))
        return batches, self.accelerator.reduce(counts, "sum").clamp(min=1)

    # Loss.

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The objective of a batch.

        Args:
            model: the student, as Trainer wrapped it.
            inputs: `input_ids` and `attention_mask`, (B, L), and `labels` where something is masked.
            return_outputs: refused; there is no evaluation.
            num_items_in_batch: tokens, masked tokens and rows of the whole optimizer step, (3,); this batch's own
                when not given.

        Returns:
            A number: the sum over the batch, each term divided by its count, times processes (they average gradients).

        Raises:
            NotImplementedError: outputs are asked for.
        """
        if return_outputs:
            raise NotImplementedError("A PretrainingTrainer has a loss and no predictions.")
        counts = num_items_in_batch if isinstance(num_items_in_batch, Tensor) else _counts(inputs).clamp(min=1)
        loss = torch.zeros((), device=inputs["input_ids"].device)
        for name, (values, counted) in self._terms(model, inputs).items():
            self.term_means.add(name, values, counted)
            loss = loss + self.weights[name] * values.sum() / counts[_COUNTED.get(name, _TOKENS)]
        return loss * self.accelerator.num_processes

    def _terms(self, model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        """Each term's values, 0 where they don't count, and which of them count."""
        read = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        mask = _tokens(inputs)
        has_vocabulary_terms = "labels" in inputs
        assert self.deep_terms is not None  # made with the trainer, maybe without any term
        with ExitStack() as stack:
            stack.enter_context(self.deep_terms.listening())
            for each in (self.model, self.teacher) if has_vocabulary_terms else ():
                stack.enter_context(undecoded(each))
            student = model(**read)
            teacher = self._ask_teacher(read)
            deep = self.deep_terms.values(mask)
        terms = self._vocabulary_terms(student, teacher, inputs["labels"], mask) if has_vocabulary_terms else {}
        return terms | {name: (values, mask[:, : values.shape[1]]) for name, values in deep.items()}

    def _ask_teacher(self, read: Mapping[str, Tensor]) -> Any:
        if not self.deep_terms and "soft_targets" not in self.weights:
            return None
        with torch.no_grad(), self.accelerator.autocast():
            return self.teacher(**read)

    def _vocabulary_terms(
        self, student: Any, teacher: Any, labels: Tensor, mask: Tensor
    ) -> dict[str, tuple[Tensor, Tensor]]:
        tokens = mask.nonzero(as_tuple=True)  # once, since a GPU is waited for
        labels = labels[tokens]
        has_soft_targets = "soft_targets" in self.weights
        with self.accelerator.autocast():
            soft, hard = vocabulary_losses(
                student.logits[tokens],
                decoder_of(self.model),
                teacher.logits[tokens] if has_soft_targets else None,
                decoder_of(self.teacher) if has_soft_targets else None,
                labels,
                self.temperature,
            )
        both = {
            "soft_targets": (soft, torch.ones_like(labels, dtype=torch.bool)),
            "masked_language_model": (hard, has_label(labels)),
        }
        return {name: term for name, term in both.items() if name in self.weights}

    def logged(self, terms: dict[str, float]) -> dict[str, float]:
        """The terms, and the loss that they make.

        Args:
            terms: the mean of each term since the last log line.

        Returns:
            Both.
        """
        return {"loss": sum(self.weights[name] * value for name, value in terms.items()), **terms}


#: Places in the counts of a step, and what a term is a mean over if not over all tokens.
_TOKENS, _MASKED, _ROWS = range(3)
_COUNTED = {"masked_language_model": _MASKED, "first_position": _ROWS}


def _counts(batch: Mapping[str, Any]) -> Tensor:
    """Tokens, masked tokens and rows: (3,)."""
    tokens = _tokens(batch)
    masked = has_label(batch["labels"]) & tokens if "labels" in batch else torch.zeros_like(tokens)
    return torch.stack([tokens.sum(), masked.sum(), tokens[:, 0].sum()])


def _tokens(batch: Mapping[str, Any]) -> Tensor:
    """Which positions are tokens, and none of a batch that stands in for no row: (B, L), bool."""
    tokens = batch["attention_mask"].bool()
    return torch.zeros_like(tokens) if FILLER in batch else tokens


def check_vocabularies(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Refuses models whose distributions can't be compared.

    Args:
        student: with a head for the vocabulary.
        teacher: likewise.

    Raises:
        TeacherError: one has no such head, or their vocabularies differ in size.
    """
    sizes = [decoder_of(model).out_features for model in (student, teacher)]
    if sizes[0] != sizes[1]:
        raise TeacherError(
            f"Expected one vocabulary, got {sizes[0]} entries in the student and {sizes[1]} in the teacher. Cut the "
            "student from the teacher, or from a model with the same vocabulary."
        )


def check_arguments(args: TrainingArguments) -> None:
    """Refuses training arguments that would be ignored, or under which nothing could be trained.

    Args:
        args: of the training.

    Raises:
        RecipeError: one of them is set.
    """
    refuse_ignored_arguments(args, has_terms=True)
    if args.train_sampling_strategy not in ("random", "group_by_length"):
        raise RecipeError(
            f"Expected train_sampling_strategy random or group_by_length, got {args.train_sampling_strategy!r}."
        )
