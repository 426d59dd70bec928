"""Data flows one way, and what answers at once imports nothing heavy. The imports are read from the source (ast)."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
PACKAGE = "distilbert_kd"
HEAVY = {"accelerate", "datasets", "evaluate", "scipy", "sklearn", "torch", "transformers"}
LIGHT = (
    "errors",
    "recipe",
    "run_folder",
    "training_arguments",
    "student.layer_maps",
    "matched_layers",
    "pretraining.recipe",
    "data.tasks",
    "hub.plan",
    "hub.push",
    "tuning.installed",
    "tuning.space",
    "cli",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


def imports_of(nodes: Iterable[ast.AST]) -> set[str]:
    """Dotted names that import statements ask for; `from a import b` gives `a.b`, which may be a module."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here, see CONTRIBUTING.md"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def statements(body: Iterable[ast.stmt], *, in_functions: bool) -> Iterable[ast.AST]:
    """Every statement that can run, with or without those in functions; never those under `if TYPE_CHECKING`."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not in_functions:
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from statements(node.orelse, in_functions=in_functions)
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            yield from statements(getattr(node, field, []), in_functions=in_functions)
        for branch in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
            yield from statements(branch.body, in_functions=in_functions)


def first_party(name: str) -> set[str]:
    """The modules of ours that importing `name` runs: itself and its parent packages."""
    parts = name.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts) + 1)} & MODULES.keys()


TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}
AT_IMPORT = {name: imports_of(statements(tree.body, in_functions=False)) for name, tree in TREES.items()}
ANYWHERE = {name: imports_of(statements(tree.body, in_functions=True)) for name, tree in TREES.items()}


def reached(module: str) -> dict[str, str]:
    """Every module of ours that importing `module` runs, with the chain that leads to it."""
    chains = {name: name for name in first_party(module)}
    queue = list(chains)
    while queue:
        current = queue.pop()
        for name in set().union(*map(first_party, AT_IMPORT[current])) - chains.keys():
            chains[name] = f"{chains[current]} -> {name}"
            queue.append(name)
    return chains


@pytest.mark.parametrize("module", LIGHT)
def test_light_module_reaches_no_heavy_import(module):
    """`--help` and `validate` would take seconds, and need torch, if one import slipped in anywhere below them."""
    name = f"{PACKAGE}.{module}"
    assert name in MODULES, f"{name} is gone: correct LIGHT here"
    found = [
        f"{chain} -> {imported}"
        for current, chain in reached(name).items()
        for imported in AT_IMPORT[current]
        if imported.split(".")[0] in HEAVY
    ]
    if found:
        pytest.fail(f"move the import into the function that needs it: {found[0]} (and {len(found) - 1} more)")


def test_light_modules_really_leave_torch_out():
    """The reading above could miss a way to import; the interpreter does not."""
    modules = ", ".join(f"{PACKAGE}.{module}" for module in LIGHT)
    code = f"import sys, {modules}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("losses", {"losses", "errors"}),  # pure functions of tensors
        ("student", {"student", "errors"}),  # layers and weights, no data and no training
        ("data", {"data", "errors"}),  # rows, no models
        ("metrics", {"metrics", "errors"}),  # numbers, loadable by `evaluate` alone
        ("errors", set()),
    ],
)
def test_lower_level_imports_nothing_above_it(package, allowed):
    """An import upwards, even a late one, ties a stage to those that run after it, and it can't be used alone."""
    own = f"{PACKAGE}.{package}"
    found = [
        f"{name} imports {imported}"
        for name, names in ANYWHERE.items()
        if name == own or name.startswith(f"{own}.")
        for imported in sorted(names)
        if imported.split(".")[0] == PACKAGE and imported.split(".")[1:2] and imported.split(".")[1] not in allowed
    ]
    assert not found


def test_recipe_stays_at_the_top():
    """Stages that take the recipe can't be called with ordinary objects, and each new key reaches all of them."""
    readers = {
        name.removeprefix(f"{PACKAGE}.")
        for name, names in ANYWHERE.items()
        if any(first_party(imported) & {f"{PACKAGE}.recipe"} for imported in names)
    }
    assert readers - {PACKAGE} <= {
        "augmentation.from_recipe",
        "augmentation.showing",
        "cli",
        "demo_app.local",
        "finished_run",
        "glue.benchmark",
        "glue.plan",
        "held_out",
        "layer_search_run",
        "pipeline",
        "plan",
        "pretraining.recipe",
        "recipe_parts",
        "tuning.report",
        "tuning.run",
        "tuning.space",
        "tuning.trial",
    }


def test_imports_form_no_circle():
    """A circle works or fails depending on which module is imported first."""
    graph = {
        name: set().union(*map(first_party, names)) - {name} - first_party(name) for name, names in AT_IMPORT.items()
    }
    graphlib.TopologicalSorter(graph).prepare()
