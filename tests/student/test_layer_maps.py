"""Which teacher layers a student is made of."""

import pytest

from distilbert_kd.errors import RecipeError
from distilbert_kd.student.layer_maps import LAYER_MAPS, half_of, resolve_layers


@pytest.mark.parametrize(
    ("num_teacher_layers", "num_layers", "name", "expected"),
    [
        # The tables of DistilBERT's extraction script, and the same rule at other depths.
        (12, 6, "distilbert", [0, 2, 4, 7, 9, 11]),
        (24, 12, "distilbert", [0, 2, 4, 6, 8, 10, 13, 15, 17, 19, 21, 23]),
        (12, 4, "distilbert", [0, 4, 7, 11]),
        (12, 3, "distilbert", [0, 6, 11]),
        (7, 3, "distilbert", [0, 3, 6]),
        (5, 2, "distilbert", [0, 4]),
        (12, 1, "distilbert", [0]),
        (12, 6, "alternate", [0, 2, 4, 6, 8, 10]),
        (12, 4, "alternate", [0, 3, 6, 9]),
        (12, 9, "alternate", [0, 1, 2, 4, 5, 6, 8, 9, 10]),
        (7, 3, "alternate", [0, 2, 4]),
        (5, 2, "alternate", [0, 2]),
        (12, 6, "alternate_last", [1, 3, 5, 7, 9, 11]),
        (12, 4, "alternate_last", [2, 5, 8, 11]),
        (7, 3, "alternate_last", [2, 4, 6]),
        (5, 2, "alternate_last", [2, 4]),
        (12, 6, "first", [0, 1, 2, 3, 4, 5]),
        (7, 3, "first", [0, 1, 2]),
        (12, 6, "last", [6, 7, 8, 9, 10, 11]),
        (7, 3, "last", [4, 5, 6]),
    ],
)
def test_named_maps_give_the_layers_of_the_tables(num_teacher_layers, num_layers, name, expected):
    """Prevents a student of other layers than the paper's under the paper's name."""
    assert resolve_layers(num_teacher_layers, num_layers, name) == expected


@pytest.mark.parametrize("name", LAYER_MAPS)
def test_any_ratio_gives_distinct_layers_in_order(name):
    """Prevents a layer that is taken twice, or one past the teacher's end, at a depth that no table shows."""
    for num_teacher_layers in range(1, 25):
        for num_layers in range(1, num_teacher_layers + 1):
            chosen = resolve_layers(num_teacher_layers, num_layers, name)
            case = (num_teacher_layers, num_layers, chosen)
            assert len(chosen) == num_layers, case
            assert chosen == sorted(set(chosen)), case
            assert chosen[0] >= 0, case
            assert chosen[-1] < num_teacher_layers, case


@pytest.mark.parametrize("name", LAYER_MAPS)
def test_all_layers_kept_is_the_teacher(name):
    """Prevents a student as deep as its teacher that skips a layer."""
    assert resolve_layers(9, 9, name) == list(range(9))


def test_the_ends_that_a_map_promises_are_kept():
    """Prevents maps that drift from their names: `distilbert` keeps both ends, the others one."""
    for num_teacher_layers in range(2, 25):
        for num_layers in range(2, num_teacher_layers + 1):
            first, last = 0, num_teacher_layers - 1
            ends = {
                name: (chosen[0], chosen[-1])
                for name in LAYER_MAPS
                if (chosen := resolve_layers(num_teacher_layers, num_layers, name))
            }
            assert ends["distilbert"] == (first, last)
            assert ends["alternate"][0] == ends["first"][0] == first
            assert ends["alternate_last"][1] == ends["last"][1] == last


@pytest.mark.parametrize(("num_teacher_layers", "half"), [(12, 6), (7, 3), (5, 2), (2, 1)])
def test_half_of_the_layers_is_the_default(num_teacher_layers, half):
    """Prevents an odd teacher without a default, and a default that is not half."""
    assert half_of(num_teacher_layers) == half
    assert len(resolve_layers(num_teacher_layers)) == half


def test_a_list_is_taken_as_it_is():
    """Prevents a list that is rounded, reordered or cut to the default depth."""
    assert resolve_layers(12, layers=[0, 1, 5, 11]) == [0, 1, 5, 11]
    assert resolve_layers(12, 2, (3, 4)) == [3, 4]
    assert resolve_layers(12, layers=range(0, 12, 4)) == [0, 4, 8]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": "even"}, "expected one of distilbert, alternate, alternate_last, first, last or a list"),
        ({"num_layers": 0}, "^num_layers: expected 1 to 12, the layers of the model that it is cut from, got 0"),
        ({"num_layers": 13}, "got 13. Take fewer layers, or a deeper model"),
        ({"layers": []}, r"^layers: expected increasing layer numbers from 0 to 11, got \[\]"),
        ({"layers": [0, 12]}, r"from 0 to 11, got \[0, 12\]. The model that it is cut from has 12 layers"),
        ({"layers": [-1, 3]}, "from 0 to 11"),
        ({"layers": [3, 0]}, "expected increasing"),
        ({"layers": [3, 3]}, "expected increasing"),
        ({"layers": [0, 1.5]}, "expected increasing"),
        ({"layers": [0, 2], "num_layers": 3}, r"num_layers is 3 and layers lists 2 \(\[0, 2\]\). Leave num_layers"),
    ],
)
def test_what_fits_no_teacher_is_refused(settings, message):
    """Prevents a student of layers that nobody asked for; each message says what would do."""
    with pytest.raises(RecipeError, match=message):
        resolve_layers(12, **settings)


def test_a_teacher_of_one_layer_has_no_half():
    """Prevents a student without a layer."""
    with pytest.raises(RecipeError, match="at least 2 layers, to take half of them, got one of 1"):
        resolve_layers(1)
    assert resolve_layers(1, 1) == [0]
