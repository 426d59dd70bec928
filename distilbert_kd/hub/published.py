"""The folder that is published, built from a run folder by a list of what may go out; everything else stays."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from distilbert_kd.errors import HubError
from distilbert_kd.hub.card import make_card
from distilbert_kd.hub.facts import RunFacts
from distilbert_kd.hub.target import HubTarget
from distilbert_kd.plain_yaml import dump_yaml
from distilbert_kd.run_folder import RunFolder
from distilbert_kd.storage import storage_errors, write_text


__all__ = ["PublishedFolder", "build_published", "make_empty", "may_go_out", "published_of"]

#: Of the student's folder: config, weights as safetensors, tokenizer files. Never a pickle.
_OF_STUDENT = (
    "config.json",
    "model.safetensors",
    "model-?????-of-?????.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "*.model",
)
#: Of the run folder: pictures of the card, and exported models.
_OF_RUN = ("plots/*.png", "onnx/*.onnx", "onnx/*.onnx_data", "onnx/*.json", "exports/*.onnx", "exports/*.json")
_TOKEN = re.compile(rb"(?<![A-Za-z0-9])(?:hf_(?:[a-z]+_)?|api_org_)[\w.-]{20,}")
_LARGEST_TEXT = 16_000_000


@dataclass(frozen=True)
class PublishedFolder:
    """What is to be uploaded.

    Attributes:
        root: The folder.
        sizes: Bytes of each file, by its place in the folder and later in the repository.
        left_out: Files of the student's folder that may not go out.
    """

    root: Path
    sizes: Mapping[str, int]
    left_out: tuple[str, ...] = ()


def build_published(folder: RunFolder, facts: RunFacts, target: HubTarget) -> PublishedFolder:
    """Builds the folder to publish, in place of one that an earlier push left. Nothing else of the run is touched.

    Weights are linked where the file system can, not copied. Card, recipe and results are written without the places
    of this machine.

    Args:
        folder: of a finished run.
        facts: of the run.
        target: where it goes.

    Returns:
        The folder, and what is in it.

    Raises:
        HubError: a file holds what looks like a token of the Hub.
        StorageError: the folder can't be written.
    """
    root = folder.published
    make_empty(root)
    with storage_errors(root):
        for base, patterns in ((folder.student, _OF_STUDENT), (folder.root, _OF_RUN)):
            for path in _allowed(base, patterns):
                _put(path, root / path.relative_to(base))
    card = make_card(facts, target.repo, target.tag or target.revision, target.license, target.language)
    write_text(root / "README.md", str(card))
    write_text(root / "recipe.yaml", dump_yaml(dict(facts.recipe)))
    write_text(root / "results.json", json.dumps(facts.results, indent=2, ensure_ascii=False) + "\n")
    published = published_of(root)
    left_out = (path.name for path in folder.student.iterdir() if path.name not in {*published.sizes, "README.md"})
    return replace(published, left_out=tuple(sorted(left_out)))


def make_empty(root: Path) -> None:
    """Makes a folder, in place of what an earlier push left there.

    Args:
        root: the folder.

    Raises:
        StorageError: it can't be written.
    """
    with storage_errors(root):
        if root.is_dir():
            shutil.rmtree(root)
        root.mkdir()


def may_go_out(name: str) -> bool:
    """Whether a file of a run may be published.

    Args:
        name: its place in the repository.

    Returns:
        Whether it is on the list; what is written for the repository itself is not.
    """
    place = PurePosixPath(name)
    patterns = (pattern for pattern in (*_OF_STUDENT, *_OF_RUN) if pattern.count("/") == name.count("/"))
    return any(place.match(pattern) for pattern in patterns)


def published_of(root: Path) -> PublishedFolder:
    """Takes a folder that was built to be uploaded.

    Args:
        root: the folder.

    Returns:
        All that is in it.

    Raises:
        HubError: a file holds what looks like a token of the Hub.
    """
    sizes = {path.relative_to(root).as_posix(): path.stat().st_size for path in root.rglob("*") if path.is_file()}
    for name in sizes:
        _refuse_token(root / name)
    return PublishedFolder(root, dict(sorted(sizes.items())))


def _allowed(base: Path, patterns: Iterable[str]) -> Iterator[Path]:
    """Files below `base` that may go out; nothing behind a link, which may lead anywhere."""
    for pattern in patterns:
        for path in base.glob(pattern):
            if path.is_file() and path.resolve() == base.resolve() / path.relative_to(base):
                yield path


def _put(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)


def _refuse_token(path: Path) -> None:
    """A token that was once pasted into a recipe or a name would be public, and everyone could use it."""
    if path.suffix in (".json", ".md", ".yaml", ".txt") and path.stat().st_size < _LARGEST_TEXT:
        if _TOKEN.search(path.read_bytes()):
            raise HubError(
                f"Expected nothing secret in what is published, got what looks like a token of the Hub in {path}. "
                "Take it out of the run's files, and revoke it: it was on the disk in plain text."
            )
