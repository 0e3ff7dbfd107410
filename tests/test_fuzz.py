"""A few hundred of the cases that ``tests/fuzz.py`` runs by the hundred thousand, the same each time."""

import fuzz
import pytest
from hypothesis import settings


@pytest.mark.parametrize(("target", "cases"), [("images", 250), ("pictures", 100), ("parameters", 60)])
def test_whatever_comes_is_read_rightly_or_refused_in_a_sentence(target, cases, tmp_path):
    assert fuzz.run(target, tmp_path, settings(fuzz.EASY, max_examples=cases)) >= min(cases, 50)
