"""Seconds of the runs that ``tests/soak.py`` makes for an hour."""

import soak


def test_threads_transform_at_the_same_time_and_leave_torch_unchanged():
    counts = soak.threads(seconds=2)
    assert counts["transforms"] > 0
    assert counts["modules"] > 0
