"""The objective, by hand and by how it is split; resuming; what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import TrainerCallback

from distilbert_kd.errors import DivergedError, RecipeError, TeacherError
from tests.pretraining.language_models import new_trainer, sentences, tiny_encoder, tiny_masked_lm
from tests.tiny import tiny_tokenizer


TERMS = {"hidden_cosine": 1.0, "value_relation": 0.5, "first_position": 0.25}


class FirstGradient(TrainerCallback):
    """Keeps the gradient of the first step, before it is clipped away or taken."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step == 0:
            self.gradient = {
                name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
            }


def gradient_of(folder, batch_size, accumulation, teacher, **settings):
    """The gradient of one step over 32 sentences, in float64."""
    trainer = new_trainer(
        folder,
        teacher,
        sentences(),
        torch.float64,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        max_grad_norm=0.0,
        logging_strategy="steps",
        logging_steps=1,
        **settings,
    )
    callback = FirstGradient()
    trainer.add_callback(callback)
    trainer.train()
    return callback.gradient, trainer.state.log_history[0]


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_the_step_is_one_however_it_is_split(tmp_path, strategy):
    """Prevents a loss whose weight of a token depends on padding, on its batch, or on accumulation."""
    whole, logs = gradient_of(tmp_path, 32, 1, tiny_masked_lm(), terms=TERMS, train_sampling_strategy=strategy)
    for batch_size, accumulation in ((8, 4), (2, 16)):
        parts, part_logs = gradient_of(
            tmp_path, batch_size, accumulation, tiny_masked_lm(), terms=TERMS, train_sampling_strategy=strategy
        )
        assert parts.keys() == whole.keys()
        for name, gradient in whole.items():
            torch.testing.assert_close(parts[name], gradient, rtol=1e-9, atol=1e-9, msg=name)
        for name in ("loss", "soft_targets", "masked_language_model", *TERMS):
            assert part_logs[name] == pytest.approx(logs[name], rel=1e-9), name


def test_the_objective_is_what_it_says(tmp_path):
    """Prevents a term over padding, over the batch instead of the tokens, without T^2 or with another weight."""
    trainer = new_trainer(
        tmp_path, tiny_masked_lm(), sentences(), torch.float64, terms={"hidden_cosine": 1.5}, temperature=3.0
    )
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
    student, teacher = trainer.model.train(), trainer.teacher
    loss = trainer.compute_loss(student, batch)

    read = {name: batch[name] for name in ("input_ids", "attention_mask")}
    mine, theirs = (model(**read, output_hidden_states=True) for model in (student, teacher))
    mask = batch["attention_mask"].bool()
    log_q, log_p = ((out.logits[mask] / 3.0).log_softmax(-1) for out in (mine, theirs))
    soft = 9.0 * (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    masked = F.cross_entropy(mine.logits.flatten(0, 1), batch["labels"].flatten())
    cosine = 1 - F.cosine_similarity(mine.hidden_states[-1][mask], theirs.hidden_states[-1][mask], dim=-1).mean()
    expected = 5.0 * soft + 2.0 * masked + 1.5 * cosine
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    pairs = zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True)
    for gradient, expected_gradient in pairs:
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12)


def test_padding_changes_nothing(tmp_path):
    """Prevents a sentence that counts less because its neighbour is long."""
    trainer = new_trainer(tmp_path, tiny_masked_lm(), sentences(), torch.float64, terms=TERMS)
    rows = [trainer.train_dataset[i] for i in range(8)]
    trainer.model.train()
    losses = []
    for multiple in (1, 32):
        trainer.data_collator.pad_to_multiple_of = multiple
        losses.append(trainer.compute_loss(trainer.model, trainer.data_collator(rows)).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)


def test_models_compute_logits_again_afterwards(tmp_path):
    """Prevents a saved student, or a teacher, whose head has lost its decoder."""
    trainer = new_trainer(tmp_path, tiny_masked_lm(), sentences(), max_steps=1)
    trainer.train()
    ids = torch.tensor([[2, 9, 3]])
    assert trainer.model.cpu()(ids).logits.shape == trainer.teacher(ids).logits.shape == (1, 3, len(tiny_tokenizer()))


@pytest.mark.parametrize("weights", [{"soft_targets": 0.0}, {"masked_language_model": 0.0}])
def test_weight_0_is_as_good_as_leaving_a_term_out(tmp_path, weights):
    """Prevents a term that is computed, logged or learnt although nobody wants it."""
    trainer = new_trainer(tmp_path, tiny_masked_lm(), sentences(), max_steps=1, logging_strategy="epoch", **weights)
    trainer.train()
    (name,) = weights
    assert name not in trainer.weights
    assert all(name not in line for line in trainer.state.log_history)


def test_without_the_vocabulary_nothing_is_masked_and_no_head_is_needed(tmp_path):
    """Prevents a sentence encoder from reading masks that it never saw, and weights that wait for a gradient."""
    trainer = new_trainer(
        tmp_path, tiny_encoder(), sentences(), soft_targets=0, masked_language_model=0, terms={"value_relation": 1.0}
    )
    assert trainer.train_dataset[0].keys() == {"input_ids"}
    reached = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    # behind the values of the last layer nothing of it is reached, nor are its queries and keys
    of_last = {name for name in reached if "layer.1." in name}
    assert of_last == {f"encoder.layer.1.attention.self.value.{kind}" for kind in ("weight", "bias")}
    assert not any(name.startswith("pooler") for name in reached)
    assert trainer.num_frozen == sum(w.numel() for w in trainer.model.parameters() if not w.requires_grad) > 0


class Stop(TrainerCallback):
    """Ends a training after some steps, as a kill would."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


@pytest.mark.parametrize(("accumulation", "workers"), [(1, 0), (2, 0), (2, 1)])
def test_a_resumed_training_is_the_same_to_the_bit(tmp_path, accumulation, workers):
    """Prevents other rows, masks or dropout after a restart in the middle of an epoch, or of the second one."""

    def training(folder, stop=None, **settings):
        trainer = new_trainer(
            folder,
            tiny_masked_lm(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1),
            sentences(16),
            terms=TERMS,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=accumulation,
            dataloader_num_workers=workers,
            num_train_epochs=2,
            **settings,
        )
        if stop is not None:
            trainer.add_callback(Stop(stop))
        return trainer

    whole = training(tmp_path / "whole")
    whole.train()
    half = whole.state.max_steps // 2
    for stop in (1, half, half + 1) if accumulation == 1 else (half + 1,):
        folder = tmp_path / f"stopped-{stop}"
        training(folder, stop, save_strategy="steps", save_steps=stop).train()
        resumed = training(folder)
        torch.manual_seed(99)
        resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{stop}"))
        for name, weight in whole.model.state_dict().items():
            assert torch.equal(resumed.model.state_dict()[name], weight), f"{name}, stopped after {stop}"


def test_a_narrower_student_learns_through_a_projection_that_is_not_saved(tmp_path):
    """Prevents a model folder that stock transformers can't load."""
    teacher = tiny_masked_lm()
    trainer = new_trainer(tmp_path, teacher, sentences(), max_steps=2)
    narrow = tiny_masked_lm(hidden_size=16, intermediate_size=32, num_hidden_layers=2)
    trainer = type(trainer)(
        model=narrow,
        args=trainer.args,
        rows=sentences(),
        tokenizer=tiny_tokenizer(),
        teacher=teacher,
        terms={"hidden_cosine": 1.0},
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "student"))
    loaded, info = type(narrow).from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not info["unexpected_keys"] and not info["missing_keys"]
    assert loaded.config.hidden_size == 16


def test_what_could_not_be_right_is_refused(tmp_path):
    """Prevents heads that are not there, vocabularies that differ, and options that would be ignored."""
    with pytest.raises(TeacherError, match="head ends in a linear layer"):
        new_trainer(tmp_path, tiny_encoder(), sentences())
    with pytest.raises(RecipeError, match="label_smoothing_factor"):
        new_trainer(tmp_path, tiny_masked_lm(), sentences(), label_smoothing_factor=0.1)
    with pytest.raises(RecipeError, match="random or group_by_length"):
        new_trainer(tmp_path, tiny_masked_lm(), sentences(), train_sampling_strategy="sequential")
    trainer = new_trainer(tmp_path, tiny_masked_lm(), sentences())
    with pytest.raises(TeacherError, match="one vocabulary"):
        type(trainer)(
            model=tiny_masked_lm(vocab_size=200),
            args=trainer.args,
            rows=sentences(),
            tokenizer=tiny_tokenizer(),
            teacher=tiny_masked_lm(),
        )


def test_a_broken_loss_ends_the_training(tmp_path):
    """Prevents hours of NaN, and their weights in a folder."""
    trainer = new_trainer(
        tmp_path, tiny_masked_lm(), sentences(), max_steps=2, logging_strategy="steps", logging_steps=1
    )
    nn.init.constant_(trainer.teacher.cls.predictions.transform.LayerNorm.weight, float("nan"))
    with pytest.raises(DivergedError, match="soft_targets"):
        trainer.train()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"soft_targets": -5.0}, "soft_targets"),
        ({"masked_language_model": float("nan")}, "masked_language_model"),
        ({"masking_probability": 0.0}, "masking_probability"),
        ({"masking_probability": 1.0}, "masking_probability"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, setting, message):
    """Prevents a term that vanishes because its weight is a slip of the pen."""
    with pytest.raises(ValueError, match=message):
        new_trainer(tmp_path, tiny_masked_lm(), sentences(), **setting)
