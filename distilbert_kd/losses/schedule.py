"""Values that change over training: alpha and the temperature."""

import math
from dataclasses import dataclass
from typing import Literal


__all__ = ["Schedule", "as_schedule"]


@dataclass(frozen=True)
class Schedule:
    """A value that goes from `start`, at the first step, to `end`, at the last one.

    With t the share of training that is done, in [0, 1]:

    - `linear`: start + (end - start) t
    - `cosine`: start + (end - start) (1 - cos(pi t)) / 2, flat at both ends
    """

    start: float
    end: float
    shape: Literal["linear", "cosine"] = "linear"

    def __post_init__(self) -> None:
        """Refuses an unknown shape.

        Raises:
            ValueError: `shape` is neither linear nor cosine.
        """
        if self.shape not in ("linear", "cosine"):
            raise ValueError(f"Expected the shape of a schedule to be 'linear' or 'cosine', got {self.shape!r}.")

    def at(self, progress: float) -> float:
        """The value when `progress` of training, in [0, 1], is done."""
        done = min(max(progress, 0.0), 1.0)
        share = done if self.shape == "linear" else (1 - math.cos(math.pi * done)) / 2
        return self.start + (self.end - self.start) * share

    @property
    def is_constant(self) -> bool:
        """Whether the value never changes."""
        return self.start == self.end


def as_schedule(value: "float | Schedule", name: str, minimum: float, maximum: float = math.inf) -> Schedule:
    """`value` as a schedule, a number being a constant one.

    Args:
        value: a number or a schedule.
        name: of the value, for the message.
        minimum: smallest value allowed.
        maximum: largest value allowed.

    Returns:
        The schedule; both its ends, and so all its values, lie in [minimum, maximum].

    Raises:
        ValueError: a value outside [minimum, maximum], or not finite.
    """
    schedule = value if isinstance(value, Schedule) else Schedule(float(value), float(value))
    for end in (schedule.start, schedule.end):
        if not (math.isfinite(end) and minimum <= end <= maximum):
            bound = f"between {minimum} and {maximum}" if math.isfinite(maximum) else f"of at least {minimum}"
            raise ValueError(f"Expected {name} to be a number {bound}, got {end}.")
    return schedule
