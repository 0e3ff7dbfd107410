"""A few hundred cases of ``tests/fuzz.py``, with a fixed seed."""

import fuzz
import pytest
from hypothesis import settings


@pytest.mark.parametrize(
    ("target", "cases"), [("images", 250), ("pictures", 100), ("archives", 60), ("caches", 40), ("parameters", 60)]
)
def test_inputs_are_read_correctly_or_refused_with_a_clear_error(target, cases, tmp_path):
    assert fuzz.run(target, tmp_path, settings(fuzz.EASY, max_examples=cases)) >= min(cases, 50)
