"""What is said of a fault."""

from contextlib import nullcontext
from dataclasses import dataclass

from tests.reliability.hurts import Inside
from tests.reliability.places import Around


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        kind: What it is one of; a heading of the table.
        name: What happens, a row of the table.
        end: Of the start that is hurt: exit code, or a negative signal.
        says: What it says, a regular expression.
        inside: Hurts the process from within.
        around: Hurts its files, and mends them afterwards where somebody would.
        begun: Whether a run is hurt that was killed in its student's step 11, after two checkpoints.
        overrides: Of the recipe, in the start that is hurt; for the stock Trainer, the same arguments.
        options: Of the command line.
        processes: That make the run.
        result: "same", as that of the undisturbed run; "different", where that was asked for; "nothing", where
            nothing may be written; "refused", where the same command can't help.
        stock: What the stock Trainer does: "same", "different", "not finite", "stuck" (the same command does not help,
            a person must), "hangs", "refused"; None where the fault has no meaning for it.
        inside_stock: In place of `inside`.
        stock_overrides: Further ones.
        by_default: Whether it is tried in `make test`.
    """

    kind: str
    name: str
    end: str
    says: str = ""
    inside: Inside | None = None
    around: Around = nullcontext
    begun: bool = False
    overrides: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    processes: int = 1
    result: str = "same"
    stock: str | None = None
    inside_stock: Inside | None = None
    stock_overrides: tuple[str, ...] = ()
    by_default: bool = False

    def inside_of(self, program: str) -> Inside | None:
        """What hurts the process of "ours" or "stock"."""
        return self.inside_stock if program == "stock" and self.inside_stock is not None else self.inside


TRAINER = "transformers:Trainer"
