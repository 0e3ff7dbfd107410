"""A few hundred of the cases that ``tests/fuzz.py`` runs by the hundred thousand, the same each time."""

import fuzz
import pytest
from hypothesis import settings

CASES = {"images": 250, "pictures": 100, "parameters": 60}


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_whatever_comes_is_read_rightly_or_refused_in_a_sentence(target: str) -> None:
    settings(fuzz.EASY, max_examples=CASES[target], derandomize=True)(fuzz.TARGETS[target])()
