"""Every command and path that the documents show exists, so that they cannot drift from the project."""

import re
import shlex
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "recipes/**/*.md")
    for path in ROOT.glob(pattern)
)  # fmt: skip
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
SHELL = {"bash", "console", "sh", "shell"}
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(document: Path, languages: set[str]) -> list[str]:
    return [text for language, text in FENCE.findall(document.read_text("utf-8")) if language in languages]


def commands(document: Path) -> list[list[str]]:
    """Each command line of the shell blocks, split into words; comments, prompts, settings and output are left out."""
    found = []
    for text in blocks(document, SHELL):
        has_prompt = re.search(r"^\$ ", text, re.MULTILINE)
        for line in text.replace("\\\n", " ").splitlines():
            if has_prompt and not line.startswith("$ "):
                continue
            for part in re.split(r"&&|\|\||;", line.removeprefix("$ ")):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                if words:
                    found.append(words)
    return found


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def is_placeholder(word: str) -> bool:
    return bool(re.search(r"[<>$*…]|\.\.\.", word)) or word.isupper()


def test_readme_is_there():
    """Without it the tests below would check nothing, and the wheel has no description."""
    assert "README.md" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_make_targets_exist(name):
    """`make: *** No rule to make target` is the first thing a newcomer would see; prose counts as well as blocks."""
    text = (ROOT / name).read_text("utf-8")
    inline = re.findall(r"`(?:[A-Z_]+=\S+ )*make ([a-z][a-z-]*)", text)
    shown = [words[1] for words in commands(ROOT / name) if words[0] == "make" and len(words) > 1]
    assert {target for target in (*inline, *shown) if "=" not in target} <= make_targets()


def test_make_lists_every_target():
    """A target without its line in `make` is found only by reading the Makefile."""
    assert shutil.which("make"), "the tests of the Makefile need make"
    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = dict(re.findall(r"^make ([a-z-]+)\s+(\S.*)$", done.stdout, re.MULTILINE))
    assert listed.keys() == make_targets()


@pytest.mark.parametrize("name", NAMES)
def test_shown_distillation_commands_are_valid(name):
    """A renamed subcommand, option, recipe or key would leave its old name in the documents."""
    import typer

    from distilbert_kd.cli import app
    from distilbert_kd.pretraining.recipe import load_pretraining_recipe
    from distilbert_kd.recipe import load_recipe
    from distilbert_kd.tuning.space import parse_space

    known = typer.main.get_command(app).commands
    for words in commands(ROOT / name):
        names = [Path(word).name for word in words]
        if "distilbert-kd" not in names or words[0] in {"docker", "pip", "buildah"}:
            continue
        arguments = words[names.index("distilbert-kd") + 1 :]
        if not arguments or arguments == ["--help"]:
            continue
        command, *rest = arguments
        assert command in known, f"{shlex.join(words)}: no such command, there are {sorted(known)}"
        options = {
            option for parameter in known[command].params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        for word in rest:
            assert not word.startswith("--") or word.split("=")[0] in {*options, "--help"}, shlex.join(words)
        recipes = [word for word in rest if word.endswith((".yaml", ".yml")) and not is_placeholder(word)]
        spaces = [word for option, word in pairwise(rest) if option == "--space"]
        overrides = [word for word in rest if re.match(r"[a-z_]+(\.[a-z_]+)*=", word) and not is_placeholder(word)]
        overrides = [word for word in overrides if word not in spaces]
        for recipe in recipes:
            if recipe.startswith("recipes/"):
                loaded = (load_pretraining_recipe if command == "pretrain" else load_recipe)(ROOT / recipe, overrides)
                if command == "tune":
                    parse_space(spaces, loaded)


@pytest.mark.parametrize("name", NAMES)
def test_linked_and_named_files_exist(name):
    """A link to a moved file, or a path in backquotes that is gone, sends the reader nowhere."""
    document = ROOT / name
    text = document.read_text("utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\((?!\w+:|#)([^)\s]+)\)", text)]
    assert [link for link in links if not (document.parent / link).exists()] == []
    paths = re.findall(r"`((?:recipes|distilbert_kd|tests|docs)/[\w./-]+)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_python_examples_compile_and_import_real_names(name):
    """An example with a typing error, or a name that the package does not have, fails on its first line."""
    import importlib

    for text in blocks(ROOT / name, {"python", "py"}):
        compile(text, name, "exec")
        for module, imported in re.findall(r"^from (distilbert_kd[\w.]*) import ([\w, ]+)$", text, re.MULTILINE):
            loaded = importlib.import_module(module)
            assert [part for part in imported.split(", ") if not hasattr(loaded, part.split(" as ")[0])] == []


@pytest.mark.parametrize("name", NAMES)
def test_yaml_examples_are_recipes(name, tmp_path):
    """A recipe that is copied from a document must pass the check that the document speaks of."""
    from distilbert_kd.recipe import load_recipe

    for text in blocks(ROOT / name, {"yaml"}):
        path = tmp_path / "example.yaml"
        path.write_text(text, "utf-8")
        load_recipe(path)
