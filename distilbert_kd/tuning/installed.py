"""Whether what a tuning needs is installed. Optuna is an extra: nothing else of the package asks for it."""

from importlib.util import find_spec

from distilbert_kd.errors import RecipeError


__all__ = ["check_optuna"]


def check_optuna() -> None:
    """Refuses to go on without Optuna, before it is imported.

    Raises:
        RecipeError: it is not installed.
    """
    if find_spec("optuna") is None:
        raise RecipeError(
            "Expected the package optuna, which chooses what is tried, got none. Install it with the extra tune: "
            "pip install 'distilbert-kd[tune]', or in a checkout pip install -c constraints.txt -e '.[tune]'"
        )
