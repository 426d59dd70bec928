"""What the package promises by name."""

import importlib
import pkgutil

import pytest

import distilbert_kd


MODULES = ["distilbert_kd", *(info.name for info in pkgutil.walk_packages(distilbert_kd.__path__, "distilbert_kd."))]


@pytest.mark.parametrize("module", MODULES)
def test_every_name_in_all_exists(module):
    """A name that is only promised fails at `from distilbert_kd import *`, or in the user's editor."""
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", [])
    assert [name for name in names if not hasattr(loaded, name)] == []
    assert len(names) == len(set(names))


def test_package_names_its_public_api():
    """Without `__all__` every import in `__init__` looks public."""
    assert {"DistillationTrainer", "build_student"} <= set(distilbert_kd.__all__)
    assert set(distilbert_kd.__all__) <= set(dir(distilbert_kd)), "lazy names belong in __dir__ too"
