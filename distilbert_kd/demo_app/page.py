"""A page to try a distilled classifier: its answer beside its teacher's, at a temperature.

This file is all of the page, and needs nothing but torch, transformers and gradio. `distilbert-kd demo RUN` serves it
for a run folder; as `app.py` of a Space it reads in `page.json` beside it which models to load.
"""

import html
import inspect
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


if TYPE_CHECKING:
    import gradio as gr

__all__ = ["Answer", "Classifier", "Page", "answer_of", "compare", "launch", "page_of_space", "probabilities"]

_NUM_TIMINGS = 5
_LOWEST_TEMPERATURE, _HIGHEST_TEMPERATURE = 1, 10
_MAX_CLASSES = 10  # that are shown of many
_PAIR = ("First text", "Second text")
#: Texts of different lengths are read from the left, and the grey of hints is too light on white.
_CSS = """
.gradio-container table td, .gradio-container table th { text-align: left; }
.gradio-container { --block-info-text-color: var(--body-text-color-subdued); }
"""


@dataclass(frozen=True)
class Classifier:
    """A model with its tokenizer; `order` are its outputs in the order of the student's classes, None if it is so."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    order: Sequence[int] | None = None


@dataclass(frozen=True)
class Answer:
    """What a model says: its logits, [C] in the student's order, and the milliseconds that the forward pass took."""

    logits: torch.Tensor
    ms: float
    is_cut: bool


@dataclass(frozen=True)
class Page:
    """What is on the page.

    Attributes:
        title: Shown at the top.
        student: The model that was distilled.
        teacher: The model it learnt from; None: the student alone is shown.
        labels: Names of the classes; None for a model that gives a number.
        max_length: Longer texts are cut to so many tokens.
        is_pair: Whether the models read two texts.
        about: Sentences below the title.
        rows: Rows to try: the texts, then a cell for each of `row_headers`.
        row_headers: What stands beside the texts of a row.
    """

    title: str
    student: Classifier
    teacher: Classifier | None
    labels: Sequence[str] | None
    max_length: int
    is_pair: bool = False
    about: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    row_headers: Sequence[str] = ()


def answer_of(classifier: Classifier, texts: Sequence[str], max_length: int) -> Answer:
    """Asks a model about one text, or one pair.

    Args:
        classifier: the model.
        texts: one or two.
        max_length: longer ones are cut to so many tokens.

    Returns:
        The logits; the time is that of the fastest of five forward passes of this text alone, without the tokenizer.
    """
    names = inspect.signature(classifier.model.forward).parameters
    tokens = classifier.tokenizer(*texts, return_token_type_ids="token_type_ids" in names)
    is_cut = len(tokens["input_ids"]) > max_length
    inputs = classifier.tokenizer(
        *texts,
        truncation=True,
        max_length=max_length,
        return_token_type_ids="token_type_ids" in names,
        return_tensors="pt",
    )
    seconds = []
    with torch.inference_mode():
        for _ in range(_NUM_TIMINGS):
            start = time.perf_counter()
            logits = classifier.model(**inputs).logits[0]
            seconds.append(time.perf_counter() - start)
    logits = logits if classifier.order is None else logits[list(classifier.order)]
    return Answer(logits.float(), 1000 * min(seconds), is_cut)


def probabilities(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Formula: softmax(logits / T). At T = 1 what the model says; the higher T, the more the other classes show.

    Args:
        logits: [C].
        temperature: T > 0.

    Returns:
        [C], in [0, 1]; they sum to 1.
    """
    return torch.softmax(logits / temperature, dim=-1)


def compare(student: Answer, teacher: Answer, labels: Sequence[str] | None, temperature: float) -> list[str]:
    """Whether two answers agree, and how far they are apart.

    Args:
        student: its answer.
        teacher: its answer.
        labels: names of the classes; None for numbers.
        temperature: T of the distributions.

    Returns:
        Sentences.
    """
    if labels is None:
        difference = abs(float(student.logits[0] - teacher.logits[0]))
        first = f"Student and teacher are {difference:.3f} apart."
    else:
        ours, theirs = (labels[int(each.logits.argmax())] for each in (student, teacher))
        first = f"They agree: {ours}." if ours == theirs else f"They differ: student {ours}, teacher {theirs}."
    lines = [first]
    if labels is not None:
        p, q = (probabilities(each.logits.double(), temperature) for each in (teacher, student))
        entropy = float(torch.special.entr(p).sum())
        kl = max(float((torch.xlogy(p, p) - torch.xlogy(p, q)).sum()), 0.0)
        lines.append(
            f"At T = {temperature:g} the teacher's distribution has {entropy:.3f} nats of entropy, and the student's "
            f"is {kl:.3f} nats (KL) from it."
        )
    return lines


def launch(page: Page, **options: Any) -> "gr.Blocks":
    """Serves the page.

    Args:
        page: what is on it.
        **options: of gradio's `launch`.

    Returns:
        The server.
    """
    blocks = _laid_out(page)
    blocks.launch(css=_CSS, footer_links=[], show_error=True, **options)  # clients are told what was wrong
    return blocks


def _laid_out(page: Page) -> "gr.Blocks":
    """Whatever comes from data is text on the page, never markup."""
    import gradio as gr  # not at once: the package loads without it

    names = _PAIR if page.is_pair else ("Text",)
    is_regression = page.labels is None
    with gr.Blocks(title=page.title, analytics_enabled=False) as blocks:
        gr.HTML(f"<h1>{html.escape(page.title)}</h1>{_paragraphs(page.about)}")
        texts = [gr.Textbox(label=name, lines=2, max_lines=12) for name in names]
        temperature = gr.Slider(
            _LOWEST_TEMPERATURE,
            _HIGHEST_TEMPERATURE,
            value=1,
            step=0.5,
            label="Temperature T",
            info="Probabilities are softmax(logits / T). A higher T shows more of what a model says of other classes.",
            visible=not is_regression,
        )
        button = gr.Button("Ask", variant="primary")
        with gr.Row():
            student = gr.Label(label="Student", num_top_classes=_MAX_CLASSES, min_width=280)
            teacher = gr.Label(
                label="Teacher", num_top_classes=_MAX_CLASSES, min_width=280, visible=page.teacher is not None
            )
        verdict = gr.HTML()

        # Clients of the endpoint pass them in this order, or by these names.
        def ask(text: str, temperature: float = 1) -> tuple[Any, Any, str]:
            return answered([text], temperature)

        def ask_pair(first_text: str, second_text: str, temperature: float = 1) -> tuple[Any, Any, str]:
            return answered([first_text, second_text], temperature)

        def answered(texts: Sequence[Any], temperature: Any) -> tuple[Any, Any, str]:
            fault = _fault_of(texts, temperature)
            if fault is not None:
                raise gr.Error(fault, print_exception=False)
            return _shown(page, [text or "" for text in texts], temperature)

        asked: dict[str, Any] = {
            "fn": ask_pair if page.is_pair else ask,
            "inputs": [*texts, temperature],
            "outputs": [student, teacher, verdict],
            "preprocess": False,  # the slider would answer a word for T with a traceback
        }
        gr.on([button.click, *(text.submit for text in texts)], **asked, api_name="ask")
        temperature.change(**asked, api_visibility="private", trigger_mode="always_last")
        if page.rows:
            headers = [*names, *page.row_headers]
            rows = gr.Dataset(
                components=[gr.Textbox(visible=False) for _ in headers],
                headers=headers,
                samples=[list(row) for row in page.rows],
                label="Rows to try: where student and teacher part most, the worst first",
            )
            rows.click(
                lambda row: row[:2] if page.is_pair else row[0],
                rows,
                texts,
                api_visibility="private",
                show_progress="hidden",
            ).then(**asked, api_visibility="private")
    return blocks


def _fault_of(texts: Sequence[Any], temperature: Any) -> str | None:
    """What a client passed that can't be asked; it may be anything. The page reads the message as HTML."""
    is_number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not is_number or not _LOWEST_TEMPERATURE <= temperature <= _HIGHEST_TEMPERATURE:
        expected, got = f"a temperature from {_LOWEST_TEMPERATURE} to {_HIGHEST_TEMPERATURE}", temperature
    elif any(not isinstance(text, str | None) for text in texts):
        expected, got = "a text", next(text for text in texts if not isinstance(text, str | None))
    else:
        return None
    return html.escape(f"Expected {expected}, got {str(got)[:60]!r}.", quote=False)


def _paragraphs(lines: Sequence[str]) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _shown(page: Page, texts: Sequence[str], temperature: float) -> tuple[Any, Any, str]:
    """Student's and teacher's bars, and the sentences below."""
    if not all(text.strip() for text in texts):
        return None, None, _paragraphs(["Type both texts." if page.is_pair else "Type a text."])
    answers = [answer_of(each, texts, page.max_length) for each in (page.student, page.teacher) if each is not None]
    bars = [_bars(each, page.labels, temperature) for each in answers]
    lines = compare(answers[0], answers[1], page.labels, temperature) if len(answers) > 1 else []
    times = [f"{name} {each.ms:.1f} ms" for name, each in zip(("student", "teacher"), answers, strict=False)]
    lines.append(f"Forward pass: {', '.join(times)}.")
    if any(each.is_cut for each in answers):
        lines.append(f"The text was cut to {page.max_length} tokens.")
    return bars[0], bars[1] if len(bars) > 1 else None, _paragraphs(lines)


def _bars(answer: Answer, labels: Sequence[str] | None, temperature: float) -> Any:
    if labels is None:
        return f"{float(answer.logits[0]):.3f}"
    return dict(zip(labels, probabilities(answer.logits, temperature).tolist(), strict=True))


def page_of_space(settings: dict[str, Any]) -> Page:
    """Loads what `page.json` names, from the Hub.

    Args:
        settings: `title`, `about`, `max_length`, `is_pair`; `student` and `teacher` with `model` and `revision`, the
            teacher also with `labels`, the names of its outputs if its config does not name them. No teacher: None.

    Returns:
        The page. It says so if the teacher can't be loaded, or its outputs can't be matched, and is without it.
    """
    student = _load(settings["student"])
    labels = None if student.model.config.num_labels == 1 else _label_names(student.model)
    about, teacher, source = list(settings["about"]), None, settings["teacher"]
    if source is not None:
        try:
            loaded = _load(source)
            order = None if labels is None else _order(labels, source["labels"] or _label_names(loaded.model))
            teacher = Classifier(loaded.model, loaded.tokenizer, order)
        except (OSError, ValueError) as error:
            about.append(f"The student is alone: its teacher {source['model']} can't be shown. {error}")
    return Page(settings["title"], student, teacher, labels, settings["max_length"], settings["is_pair"], about)


def _load(source: dict[str, Any]) -> Classifier:
    model = AutoModelForSequenceClassification.from_pretrained(
        source["model"], revision=source["revision"], dtype=torch.float32, use_safetensors=True
    )
    return Classifier(model.eval(), AutoTokenizer.from_pretrained(source["model"], revision=source["revision"]))


def _label_names(model: PreTrainedModel) -> list[str]:
    return [str(name) for _, name in sorted((model.config.id2label or {}).items())]


def _order(labels: Sequence[str], given: Sequence[str]) -> list[int]:
    """Where each label stands among the teacher's outputs, by name; case, spaces, hyphens, underscores don't count."""
    keys, theirs = ([re.sub(r"[\s_-]+", "_", name.casefold()) for name in names] for names in (labels, given))
    if sorted(keys) != sorted(theirs):
        raise ValueError(f"Its outputs are {', '.join(given)}; the student's are {', '.join(labels)}.")
    return [theirs.index(key) for key in keys]


if __name__ == "__main__":  # the Space
    launch(page_of_space(json.loads(Path(__file__).with_name("page.json").read_text("utf-8"))))
