"""All recipes of a benchmark are checked before hours are spent on the first."""

import pytest
import yaml

from distilbert_kd.errors import RecipeError, StorageError
from distilbert_kd.glue.plan import is_done, plan_benchmark
from distilbert_kd.recipe import load_recipe
from tests.glue.glue_runs import glue_run


@pytest.fixture
def folder(tmp_path):
    """Recipes for RTE and CoLA, and what is no recipe."""
    folder = tmp_path / "recipes"
    (folder / "minilm").mkdir(parents=True)
    for task in ("rte", "cola"):
        write(folder / f"{task}.yaml", task=task)
    write(folder / "minilm" / "rte.yaml", task="rte")
    (folder / "README.md").write_text("read me")
    return folder


def write(path, push=None, **data):
    recipe = {"name": path.stem, "seed": 7, "data": data, "teacher": {"model": "somewhere"}}
    path.write_text(yaml.safe_dump(recipe | ({"push": push} if push else {})), "utf-8")


def test_tasks_seeds_and_places(folder, tmp_path):
    """Prevents two runs in one folder, and seeds that are the same twice."""
    out = tmp_path / "it's: out"
    plan = plan_benchmark(folder, [], 2, out, ["training.learning_rate=1e-3"])
    assert list(plan) == ["cola", "rte"]
    assert [recipe.seed for recipe in plan["rte"]] == [7, 8]
    assert [recipe.output_dir for recipe in plan["rte"]] == [str(out / "rte" / "seed-7"), str(out / "rte" / "seed-8")]
    assert all(recipe.training == {"learning_rate": 1e-3} for recipes in plan.values() for recipe in recipes)
    assert list(plan_benchmark(folder, ["rte"], 1, out, ["seed=1"])) == ["rte"]
    assert plan_benchmark(folder, ["rte"], 1, out, ["seed=1"])["rte"][0].seed == 1


@pytest.mark.parametrize(
    ("tasks", "overrides", "message"),
    [
        (["rte", "mnli"], [], "for mnli; got cola, rte"),
        (["RTE"], [], "--tasks: expected names out of cola, .*; got RTE"),
        ([], ["output_dir=runs/x"], "--out decides"),
        ([], ["data.task=rte"], "two for rte, cola.yaml and rte.yaml"),
        ([], ["training.learning_rat=1"], "learning_rat"),
    ],
)
def test_what_is_refused(folder, tmp_path, tasks, overrides, message):
    """Prevents a table that silently lacks a task, or has one twice."""
    with pytest.raises(RecipeError, match=message):
        plan_benchmark(folder, tasks, 1, tmp_path / "out", overrides)


def test_recipes_that_are_no_benchmark(folder, tmp_path):
    """Prevents rows of one's own under GLUE's name, and five seeds that push over each other."""
    write(folder / "own.yaml", train="a.csv", validation="b.csv", text="text", label="label")
    with pytest.raises(RecipeError, match=r"own\.yaml: expected one recipe for each GLUE task.*own data"):
        plan_benchmark(folder, [], 1, tmp_path / "out")
    write(folder / "own.yaml", task="sst2", push={"repo": "ada/sst2"})
    with pytest.raises(RecipeError, match="Add push=null"):
        plan_benchmark(folder, [], 1, tmp_path / "out")
    with pytest.raises(RecipeError, match="for GLUE tasks; got none"):
        plan_benchmark(tmp_path / "nonesuch", [], 1, tmp_path / "out")


def test_a_run_of_another_recipe_is_not_taken(folder, tmp_path):
    """Prevents a table of runs that were made with other settings than those that the recipes show."""
    (recipe,) = plan_benchmark(folder, ["rte"], 1, tmp_path / "out")["rte"]
    place = glue_run(tmp_path / "out" / "rte" / "seed-7", "rte", 7)
    (place / "student").mkdir()
    for name in ("config.json", "model.safetensors"):
        (place / "student" / name).write_text("{}")
    (place / "recipe.yaml").write_text(recipe.to_yaml(), "utf-8")
    assert is_done(recipe)
    plan_benchmark(folder, ["rte"], 1, tmp_path / "out")
    with pytest.raises(StorageError, match=r"other values of data\.max_length\. .*--out"):
        plan_benchmark(folder, ["rte"], 1, tmp_path / "out", ["data.max_length=64"])
    assert load_recipe(place / "recipe.yaml").data.max_length == 128
