"""What may be tuned: how it is written, and what is refused before anything is loaded."""

import pytest

from distilbert_kd.errors import RecipeError
from distilbert_kd.recipe import Recipe
from distilbert_kd.tuning.space import Choices, Range, default_space, parse_space, value_of, with_values


def recipe_of(**sections) -> Recipe:
    values = {
        "name": "r",
        "data": {"task": "rte"},
        "teacher": {"model": "base"},
        "training": {"learning_rate": 1e-4, "num_train_epochs": 4},
        **sections,
    }
    return Recipe.model_validate(values)


class TestDefaultSpace:
    def test_it_lies_around_the_recipe(self):
        """Prevents a search that can't find the recipe's own values again, or that never leaves them."""
        space = default_space(recipe_of())
        assert space == {
            "distillation.temperature": Range(1.0, 8.0, is_log=True),
            "distillation.alpha": Range(0.0, 1.0),
            "training.learning_rate": Range(1e-4 / 4, 4e-4, is_log=True),
            "training.num_train_epochs": Range(2, 8, is_whole=True),
            "student.layers": Choices(("alternate", "distilbert", "alternate_last", "first", "last")),
        }
        assert all(value_of(recipe_of(), key) in values for key, values in space.items())

    @pytest.mark.parametrize(
        "sections",
        [
            {"training": {}},
            {"training": {"num_train_epochs": 0.5}},
            {"training": {"num_train_epochs": 1}},
            {"distillation": {"temperature": 20.0}, "student": {"layers": [0, 5]}},
        ],
    )
    def test_any_recipe_lies_in_its_own_space(self, sections):
        """Prevents a warning, and a first trial without its values, for recipes that say little or much."""
        recipe = recipe_of(**sections)
        for key, values in parse_space([], recipe).items():
            assert value_of(recipe, key) in values, key

    def test_a_schedule_is_no_number_to_draw(self):
        """Prevents a crash, and a schedule that is silently taken for a constant."""
        recipe = recipe_of(distillation={"alpha": {"start": 0.9, "end": 0.1}})
        assert value_of(recipe, "distillation.alpha") not in default_space(recipe)["distillation.alpha"]


class TestGivenSpace:
    def test_what_is_asked_for_and_nothing_else(self):
        """Prevents a search over keys that a user wanted to stay as they are."""
        asked = [
            "training.learning_rate=1e-5..1e-3",
            "training.num_train_epochs = 2..6",
            "distillation.alpha=[0.5, 0.9]",
            "distillation.temperature",
            "training.weight_decay=0..0.1",
            "training.num_train_epochs=0.5..2.5",
            "student.layers=[first, [0, 3]]",
        ]
        space = parse_space(asked, recipe_of())
        assert space == {
            "training.learning_rate": Range(1e-5, 1e-3, is_log=True),
            "training.num_train_epochs": Range(0.5, 2.5),  # the later one wins, as with overrides
            "distillation.alpha": Choices((0.5, 0.9)),
            "distillation.temperature": Range(1.0, 8.0, is_log=True),
            "training.weight_decay": Range(0.0, 0.1),
            "student.layers": Choices(("first", [0, 3])),
        }
        assert parse_space(asked[1:2], recipe_of())["training.num_train_epochs"] == Range(2, 6, is_whole=True)

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ("training.learning_rate=1e-3..1e-5", "a smaller and a larger number"),
            ("training.learning_rate=low..1", "expected a number"),
            ("training.learning_rate=nan..1", "expected a number"),
            ("training.learning_rate=1e-3", r"expected low\.\.high or \[value"),
            ("training.learning_rate=[]", r"expected low\.\.high or \[value"),
            ("training.weight_decay", "has no range of its own"),
            ("distillation.alpha=0..1.5", "a number from 0 to 1, got 1.5"),
            ("distillation.temperature=[1, hot]", "distillation.temperature: expected a number"),
            ("student.layers=[odd]", "student.layers: expected one of"),
            ("student.layers=0..3", "student.layers: expected one of"),
            ("training.learning_rte=0..1", 'got "training.learning_rte"'),
            ("student.num_layers=1..3", 'got "student.num_layers"'),
            ("teacher.model=[a, b]", 'got "teacher.model"'),
            ("data.max_length=8..16", 'got "data.max_length"'),
            ("training.save_steps=1..2", "set by the trials themselves"),
            ("training.eval_strategy=[no]", "set by the trials themselves"),
            ("training.seed=1..2", "set seed at the top level"),
        ],
    )
    def test_a_wrong_one_is_refused(self, asked, message):
        """Prevents hours of trials before the one that can't be, or of a key that changes nothing."""
        with pytest.raises(RecipeError, match=message):
            parse_space([asked], recipe_of())

    def test_all_errors_come_in_one_message(self):
        """Prevents a correction at a time."""
        with pytest.raises(RecipeError, match="(?s)has 2 errors.*alpha.*foo|has 2 errors.*foo.*alpha"):
            parse_space(["distillation.alpha=0..2", "foo=1"], recipe_of())

    def test_epochs_that_steps_decide_over(self):
        """Prevents trials that differ in a number which the Trainer doesn't look at."""
        recipe = recipe_of(training={"max_steps": 100})
        with pytest.raises(RecipeError, match="max_steps decides"):
            parse_space([], recipe)
        assert parse_space(["distillation.alpha"], recipe)


class TestValues:
    def test_another_recipe_with_them(self):
        """Prevents a trial of something else than its table says."""
        recipe = recipe_of(distillation={"alpha": {"start": 0.9, "end": 0.1}})
        changed = with_values(
            recipe, {"distillation.alpha": 0.25, "training.weight_decay": 0.1, "student.layers": [0]}
        )
        assert (changed.distillation.alpha, changed.distillation.temperature) == (0.25, 2.0)
        assert changed.training == {"learning_rate": 1e-4, "num_train_epochs": 4, "weight_decay": 0.1}
        assert changed.student.layers == [0]
        assert recipe.distillation.alpha != 0.25
        assert changed.data == recipe.data

    @pytest.mark.parametrize(("value", "rounded"), [(0.000123456, 0.000123), (0.9999, 0.9994), (0.10004, 0.1)])
    def test_three_digits_within_the_range(self, value, rounded):
        """Prevents recipes with learning rates of 17 digits, and one that rounding takes out of its range."""
        assert Range(0.0, 0.9994).rounded(value) == rounded
