"""The model card of a student, `README.md`, from its run folder alone: no figure is typed, nothing is made up.

The metadata are in `metadata`. The text says what the student is, how it compares with its teacher and with the same
student without one, how to use it, how it was made and evaluated, and what is not known.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import ModelCard

from distilbert_kd.data.tasks import TASKS
from distilbert_kd.hub.card_method import method_lines
from distilbert_kd.hub.card_tables import class_table, comparison, evaluation_lines, one_sentence
from distilbert_kd.hub.facts import RunFacts
from distilbert_kd.hub.metadata import card_metadata, dataset_id
from distilbert_kd.hub.target import HubTarget
from distilbert_kd.markdown import code, escaped, fenced
from distilbert_kd.plain_yaml import dump_yaml
from distilbert_kd.result_facts import warnings_of
from distilbert_kd.run_folder import PLOTS, RunFolder
from distilbert_kd.storage import write_text


__all__ = ["has_pairs", "make_card", "planned_card", "write_card"]

_CITATION = """@article{hinton2015distilling,
  title = {Distilling the Knowledge in a Neural Network},
  author = {Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff},
  journal = {arXiv preprint arXiv:1503.02531},
  year = {2015}
}

@article{sanh2019distilbert,
  title = {DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter},
  author = {Sanh, Victor and Debut, Lysandre and Chaumond, Julien and Wolf, Thomas},
  journal = {arXiv preprint arXiv:1910.01108},
  year = {2019}
}"""
_LARGEST_RECIPE = 20_000


def write_card(run: Path, options: Mapping[str, Any]) -> Path:
    """Writes the card of a run beside its student's weights. A push makes its own.

    Args:
        run: the folder of a finished run.
        options: keys of `HubTarget`; without a repository, here and in the recipe, the card speaks of a folder.

    Returns:
        The card's path.

    Raises:
        HubError: the repository has no valid name.
        StorageError: it is no finished run, or the disk is at fault.
    """
    folder = RunFolder.open(run)
    facts = RunFacts.read(folder)
    target = HubTarget.of({"repo": "owner/name"}, facts.push, options)  # any name, to check the other keys
    repo = options.get("repo") or facts.push.get("repo")
    path = folder.student / "README.md"
    # Recipe and plots stand beside the student's folder; what is pushed has them beside the card.
    revision = target.tag or target.revision
    card = make_card(facts, repo, revision, target.license, target.language, run_folder="../")
    write_text(path, str(card))
    return path


def planned_card(recipe: Mapping[str, Any], target: HubTarget) -> ModelCard:
    """A card with what is known before the run, for the Hub to say whether it takes the metadata.

    Args:
        recipe: with every default.
        target: where the student is to go.

    Returns:
        The card, with metadata and without text.
    """
    metadata = card_metadata(RunFacts.planned(recipe), _name(target.repo), target.license, target.language)
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n")


def make_card(
    facts: RunFacts,
    repo: str | None = None,
    revision: str | None = None,
    license: str | None = None,
    language: str | None = None,
    run_folder: str = "",
) -> ModelCard:
    """The card of a student.

    Args:
        facts: of its run.
        repo: where the student goes; None: the card speaks of a folder.
        revision: by which it is loaded there; None: the newest.
        license: of the student, if its owner says.
        language: of the texts, if its owner says.
        run_folder: where recipe and plots are, as seen from the card, with a slash; "": beside it.

    Returns:
        The card.
    """
    name = _name(repo) if repo else facts.results["name"]
    metadata = card_metadata(facts, name, license, language)
    sections = [
        f"# {escaped(name)}",
        *(f"> **Warning:** {escaped(line)}" for line in warnings_of(facts.results)),
        one_sentence(facts, _teacher(facts)),
        _section("Use", _snippet(facts, repo, revision), _use_notes(facts)),
        _section("Student against teacher", *comparison(facts)),
        _section("How it was distilled", method_lines(facts)),
        _section("Evaluation", *evaluation_lines(facts, _data(facts)), *_pictures(facts, run_folder)),
        _section("Classes", class_table(facts)),
        _section("Limits", _limits(facts, license)),
        _section("How to reproduce", *_reproduction(facts, run_folder)),
        _section("Citation", fenced(_CITATION, "bibtex")),
    ]
    text = "\n\n".join(section for section in sections if section)
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}\n")


def _name(repo: str) -> str:
    return repo.split("/")[-1]


def _section(title: str, *parts: str) -> str:
    text = [part for part in parts if part]
    return "\n\n".join([f"## {title}", *text]) if text else ""


def _teacher(facts: RunFacts) -> str:
    """The teacher with a link, if it is on the Hub."""
    source = facts.recipe["teacher"]
    name, at = code(source["model"]), ""
    if facts.teacher_id:  # then the run recorded the commit
        commit = facts.environment["teacher"]["commit"]
        name = f"[{escaped(facts.teacher_id)}](https://huggingface.co/{facts.teacher_id}/tree/{commit})"
        at = f" at revision {code(commit)}"
    return f"{name}{at}{', fine-tuned on the task first' if source.get('finetune') is not None else ''}"


def _data(facts: RunFacts) -> str:
    """The data with a link, if they are on the Hub."""
    data, hub_id = facts.recipe["data"], dataset_id(facts.recipe)
    if not hub_id:
        return escaped(facts.results["data"]["source"])
    config = data.get("task") or data.get("dataset_config")
    link = f"[{escaped(hub_id)}](https://huggingface.co/datasets/{hub_id})"
    return f"{link}, configuration {code(config)}" if config else link


def _snippet(facts: RunFacts, repo: str | None, revision: str | None) -> str:
    place = repo or "path/to/student"
    arguments = ['"text-classification"', f'model="{place}"', *([f'revision="{revision}"'] if revision else [])]
    text = '{"text": "The first text.", "text_pair": "The second text."}' if has_pairs(facts) else '"A text."'
    options = [f"truncation=True, max_length={facts.recipe['data']['max_length']}"]
    if facts.config.get("problem_type") == "regression":
        options.append('function_to_apply="none"')
    lines = [
        "from transformers import pipeline\n",
        f"classify = pipeline({', '.join(arguments)})",
        f"print(classify({text}, {', '.join(options)}))",
    ]
    return fenced("\n".join(lines), "python")


def has_pairs(facts: RunFacts) -> bool:
    """Whether the student reads two texts."""
    data = facts.recipe["data"]
    return bool(data.get("text_pair") or (data.get("task") and TASKS[data["task"]].text_pair))


def _use_notes(facts: RunFacts) -> str:
    if facts.config.get("problem_type") == "regression":
        return "It gives one number for a text, on the scale of the training data."
    labels = [
        label for _, label in sorted((facts.config.get("id2label") or {}).items(), key=lambda each: int(each[0]))
    ]
    return f"It tells {len(labels)} classes apart: {', '.join(map(code, labels))}." if labels else ""


def _pictures(facts: RunFacts, run_folder: str) -> list[str]:
    captions = {plot: PLOTS.get(Path(plot).stem, Path(plot).stem) for plot in facts.plots}
    return [f"![{escaped(caption)}]({quote(run_folder + plot)})" for plot, caption in captions.items()]


def _limits(facts: RunFacts, license: str | None) -> str:
    lines = [
        f"One run with seed {facts.results['seed']}: how far the scores move with the seed is not measured.",
        f"Texts of more than {facts.recipe['data']['max_length']} tokens are cut, in training and in these figures.",
        "It was evaluated on rows of the same source as its training rows; on other texts it may be worse. Its biases "
        "are those of the teacher and of the data; they were not examined.",
    ]
    if not facts.results["models"].get("control"):
        lines.append("No control was trained: what the teacher bought over the labels alone is not known.")
    if not license:
        lines.append("No licence is stated here; those of the model that it was cut from and of the data apply.")
    notes = [escaped(note) for note in facts.results["data"].get("notes") or ()]
    return "\n".join(f"- {line}" for line in [*lines, *(f"Of the data: {note}." for note in notes)])


def _reproduction(facts: RunFacts, run_folder: str) -> list[str]:
    versions = (facts.environment.get("versions") or {}).items()
    known = ", ".join(f"{name} {version}" for name, version in versions if version)
    command = fenced(f"distilbert-kd run {run_folder}recipe.yaml", "bash")
    recipe = dump_yaml(dict(facts.recipe))
    shown = fenced(recipe, "yaml") if len(recipe) <= _LARGEST_RECIPE else ""
    weights = (facts.environment.get("teacher") or {}).get("weights_sha256")
    identity = f"The teacher's weights had the fingerprint (SHA-256) {code(weights)}." if weights else ""
    where = "of this folder" if not run_folder else "of the run's folder"
    return [command, f"with `recipe.yaml` {where}{':' if shown else '.'}", shown, _versions(known), identity]


def _versions(known: str) -> str:
    return f"Made with {escaped(known)}." if known else ""
