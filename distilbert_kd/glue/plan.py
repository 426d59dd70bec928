"""Which recipes a benchmark runs, with which seeds and where to. All are read and checked before anything runs."""

import json
from collections.abc import Sequence
from pathlib import Path

from distilbert_kd.data.tasks import TRAINABLE_TASKS
from distilbert_kd.errors import RecipeError, StorageError
from distilbert_kd.recipe import Recipe, load_recipe
from distilbert_kd.resuming import flat_recipe
from distilbert_kd.run_folder import RunFolder


__all__ = ["is_done", "plan_benchmark"]


def plan_benchmark(
    folder: Path, tasks: Sequence[str], num_seeds: int, out: Path, overrides: Sequence[str] = ()
) -> dict[str, list[Recipe]]:
    """Reads and checks the recipes of all runs.

    Args:
        folder: with a recipe for each task, `*.yaml`.
        tasks: those to run; empty for all that have a recipe.
        num_seeds: runs of each task: the recipe's seed, and the numbers after it.
        out: the folder of the benchmark.
        overrides: `section.key=value` for all recipes.

    Returns:
        Task to one recipe for each seed, in GLUE's order.

    Raises:
        RecipeError: a recipe is wrong or is none of a GLUE task, a task has none or two, or the recipe pushes.
        StorageError: a run that is done was made by another recipe.
    """
    if any(override.startswith("output_dir") for override in overrides):
        raise RecipeError("output_dir: expected none, because --out decides where the runs lie. Leave it out.")
    unknown = [task for task in tasks if task not in TRAINABLE_TASKS]
    if unknown:
        raise RecipeError(f"--tasks: expected names out of {', '.join(TRAINABLE_TASKS)}; got {', '.join(unknown)}.")
    paths = _recipes_in(folder, overrides)
    missing = [task for task in tasks if task not in paths]
    if missing or not paths:
        raise RecipeError(
            f"{folder}: expected recipes, *.yaml, for {', '.join(missing) or 'GLUE tasks'}; got "
            f"{', '.join(paths) or 'none'}. Give their folder, for example recipes/glue"
        )
    plan = {}
    for task in (task for task in TRAINABLE_TASKS if task in (tasks or paths)):
        first = load_recipe(paths[task], overrides).seed
        places = {seed: json.dumps(str(out / task / f"seed-{seed}")) for seed in range(first, first + num_seeds)}
        plan[task] = [
            load_recipe(paths[task], [*overrides, f"seed={seed}", f"output_dir={place}"])
            for seed, place in places.items()
        ]
    for recipe in (recipe for recipes in plan.values() for recipe in recipes):
        _refuse_other_recipe(recipe)
    return plan


def is_done(recipe: Recipe) -> bool:
    """Whether the run of a recipe is finished."""
    return RunFolder(Path(recipe.output_dir)).results.is_file()


def _recipes_in(folder: Path, overrides: Sequence[str]) -> dict[str, Path]:
    """Task to its recipe."""
    paths: dict[str, Path] = {}
    for path in sorted(folder.glob("*.yaml")):
        recipe = load_recipe(path, overrides)
        task = recipe.data.task
        if task is None or task in paths:
            got = "one of own data" if task is None else f"two for {task}, {paths[task].name} and {path.name}"
            raise RecipeError(f"{path}: expected one recipe for each GLUE task in the folder, got {got}.")
        if recipe.push is not None:
            raise RecipeError(f"{path}: expected no push, because each seed would push over the last. Add push=null")
        paths[task] = path
    return paths


def _refuse_other_recipe(recipe: Recipe) -> None:
    """A run that is done is taken as it is, so it must be the one that is asked for."""
    if not is_done(recipe):
        return
    folder = RunFolder.open(Path(recipe.output_dir))
    before, now = (flat_recipe(each.to_yaml()) for each in (load_recipe(folder.recipe), recipe))
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if changed:
        raise StorageError(
            f"Expected to find the run of this recipe in {folder.root}, got one with other values of "
            f"{', '.join(changed)}. Bring them back, choose another --out, or move the folder away."
        )
