"""alpha and temperature over training."""

import math

import pytest

from distilbert_kd.losses.schedule import Schedule, as_schedule


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@pytest.mark.parametrize(("start", "end"), [(0.9, 0.1), (1.0, 5.0)])
def test_the_ends_and_the_middle_are_exact(shape, start, end):
    """Prevents a schedule that is run backwards or never gets to its end."""
    schedule = Schedule(start, end, shape)
    assert schedule.at(0.0) == start
    assert schedule.at(1.0) == pytest.approx(end, rel=1e-15)
    assert schedule.at(0.5) == pytest.approx((start + end) / 2, rel=1e-15)


def test_linear_and_cosine_have_their_own_shapes():
    """Prevents a cosine that is linear: it has gone (1 - cos(pi/4)) / 2 of the way after a quarter of training."""
    assert Schedule(0.0, 1.0).at(0.25) == 0.25
    assert Schedule(0.0, 1.0, "cosine").at(0.25) == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert Schedule(0.0, 1.0, "cosine").at(0.01) < 0.001


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_it_only_ever_goes_toward_its_end(shape):
    """Prevents a schedule that swings back."""
    values = [Schedule(2.0, 8.0, shape).at(step / 100) for step in range(101)]
    assert values == sorted(values)
    assert len(set(values)) == 101


@pytest.mark.parametrize(("progress", "value"), [(-0.5, 1.0), (1.5, 3.0)])
def test_nothing_happens_outside_of_training(progress, value):
    """Prevents alpha above 1 when a step more is made than was planned."""
    assert Schedule(1.0, 3.0).at(progress) == value


def test_constant_is_what_never_changes():
    """Prevents a log full of a constant, or without a value that changes."""
    assert Schedule(2.0, 2.0).is_constant
    assert not Schedule(2.0, 2.5).is_constant
    assert [Schedule(0.3, 0.3, "cosine").at(progress) for progress in (0.0, 0.37, 1.0)] == [0.3] * 3


def test_an_unknown_shape_is_refused():
    """Prevents a misspelt shape from being taken for a cosine."""
    with pytest.raises(ValueError, match="'linear' or 'cosine', got 'exponential'"):
        Schedule(0.0, 1.0, "exponential")


def test_a_number_is_a_constant_schedule():
    """Prevents two kinds of values behind one name."""
    assert as_schedule(2, "temperature", minimum=0.01) == Schedule(2.0, 2.0)
    schedule = Schedule(0.2, 0.8, "cosine")
    assert as_schedule(schedule, "alpha", minimum=0.0, maximum=1.0) is schedule


@pytest.mark.parametrize("value", [1.5, -0.1, math.nan, math.inf, Schedule(0.5, 1.5), Schedule(-0.5, 0.5)])
def test_values_out_of_bounds_are_refused_at_both_ends(value):
    """Prevents an alpha above 1, which turns the hard loss around, also where only a schedule's end gets there."""
    with pytest.raises(
        ValueError, match=r"Expected alpha to be a number between 0.0 and 1.0, got (1.5|-0.1|-0.5|nan|inf)"
    ):
        as_schedule(value, "alpha", minimum=0.0, maximum=1.0)


@pytest.mark.parametrize("value", [0.0, math.inf, math.nan])
def test_a_bound_on_one_side_only_is_worded_so(value):
    """Prevents advice to stay below infinity."""
    with pytest.raises(ValueError, match=r"Expected temperature to be a number of at least 0.01, got"):
        as_schedule(value, "temperature", minimum=0.01)


def test_the_bounds_themselves_are_allowed():
    """Prevents alpha = 0 and alpha = 1, the two pure objectives, from being refused."""
    for alpha in (0, 1):
        assert as_schedule(alpha, "alpha", minimum=0.0, maximum=1.0).at(0.5) == alpha
