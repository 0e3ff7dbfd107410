"""The papers' claims: the rows of a claim differ in one thing, and the verdict follows from the recorded scores."""

import pandas as pd
import pytest

claims = pytest.importorskip("benchmarks.claims", reason="the benchmarks are not installed")


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim.text)
def test_rows_of_a_claim_differ_in_one_thing(claim):
    assert claims.differences(claim.better, claim.baseline) == [claim.differs]


@pytest.mark.parametrize(
    ("better", "baseline", "expected"),
    [
        ("SimSiamGSG", "SimSiam", ["a crop", "method"]),  # crops of at least 0.08 and 0.2
        ("SimSiamGSG, symmetric", "SimSiam", ["a crop", "method"]),
        ("LeOCLR", "MoCo", ["method", "temperature"]),
        ("BYOL + rotation", "BYOL, momentum 0.99", ["aux", "ema_momentum"]),
        ("SimCLR", "SimCLR", []),
    ],
)
def test_differences_are_found(better, baseline, expected):
    assert claims.differences(better, baseline) == expected


@pytest.mark.parametrize(
    ("better", "baseline", "expected"),
    [
        ([0.50, 0.51, 0.52], [0.40, 0.41, 0.42], "yes"),
        ([0.40, 0.41, 0.42], [0.50, 0.51, 0.52], "the opposite"),
        ([0.50, 0.51, 0.52], [0.49, 0.51, 0.52], "undecided"),
        ([0.50, 0.51, 0.52], [0.4], "one seed"),
    ],
)
def test_verdict_is_that_of_a_t_test(better, baseline, expected):
    assert claims.verdict(pd.Series(better), pd.Series(baseline)) == expected


def test_table_uses_the_latest_row_of_a_seed_on_a_cpu():
    row = {"backbone": "convnet", "epochs": 10, "hardware": "a processor"}
    rows = [{**row, "method": "SimCLR", "seed": seed, "knn": 0.4 + seed / 100} for seed in range(3)]
    rows += [{**row, "method": "SimCLR + rotation", "seed": seed, "knn": 0.5 + seed / 100} for seed in range(3)]
    rows += [{**rows[0], "knn": 0.1}, {**rows[0], "knn": 0.4}, {**rows[0], "knn": 0.9, "hardware": "NVIDIA H200"}]
    rows += [{**rows[0], "knn": 0.9, "epochs": 20}, {**rows[0], "knn": 0.9, "backbone": "resnet18"}]
    (found,) = claims.table(pd.DataFrame(rows)).to_dict("records")
    assert found["claim"] == "rotation helps SimCLR"
    assert found["kNN"] == "0.510 ± 0.010"
    assert found["kNN of the baseline"] == "0.410 ± 0.010"
    assert (found["difference"], found["seeds"], found["confirmed?"]) == ("+0.100", "3, 3", "yes")
    assert found["processors"] == 1
    rows += [{**rows[1], "hardware": "another, 1 threads"}]
    (found,) = claims.table(pd.DataFrame(rows)).to_dict("records")
    assert found["processors"] == 2
