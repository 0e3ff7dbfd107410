"""The papers' claims against the recorded rows of ``methods``: one thing differs, and the verdict is computed.

A claim names two rows of ``benchmarks/methods.py`` that differ in one thing, and says that the first has the better kNN
accuracy. The verdict compares the seeds of both by Welch's t test: "yes" or "the opposite" if the two-sided p value is
below 0.05, "undecided" otherwise. The number of claims is not corrected for. The documentation shows this table.

    python -m benchmarks claims
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy.stats import ttest_ind

from benchmarks.methods import METHODS, SYMMETRIC
from benchmarks.record import read

LEVEL = 0.05


@dataclass(frozen=True)
class Claim:
    """The row `better` has a higher accuracy than the row `baseline`; they differ in `differs`."""

    text: str
    source: str
    better: str
    baseline: str
    differs: str
    epochs: int = 10


def _rotation(method: str, better: str, baseline: str, setting: str = "") -> Claim:
    return Claim(f"rotation helps {method}{setting}", "EffSSL, table 5", better, baseline, "aux")


def _guiding() -> list[Claim]:
    """Return GSG's claims about the stopped gradient, for both methods, and for two and four views of an image."""
    found = []
    for title, method in {"SimSiamGSG": "SimSiam", "BYOLGSG": "BYOL"}.items():
        symmetric = f"{title}, symmetric"
        for row, views in {f"{title}, shared views": "two views", title: "four views"}.items():
            of = f"({method}, {views})"  # the symmetric form always has two
            found += [
                Claim(f"guiding beats the symmetric form {of}", "GSG, table 1", row, symmetric, "stop_gradient"),
                Claim(f"guiding beats a random choice {of}", "GSG, section 6", row, f"{row}, random", "stop_gradient"),
                Claim(
                    f"a random choice beats the reverse {of}",
                    "GSG, section 6",
                    f"{row}, random",
                    f"{row}, reverse",
                    "stop_gradient",
                ),
            ]
        found.append(
            Claim(
                f"without a predictor guiding beats the symmetric form ({method})",
                "GSG, section 6",
                f"{title}, shared views, no predictor",
                f"{symmetric}, no predictor",
                "stop_gradient",
            )
        )
        for setting in ("no schedule", "batch 64"):
            found.append(
                Claim(
                    f"guiding beats the symmetric form ({method}, two views, {setting})",
                    "GSG, table 1",
                    f"{title}, shared views, {setting}",
                    f"{symmetric}, {setting}",
                    "stop_gradient",
                )
            )
    longer = "SimSiamGSG, shared views"
    for text, baseline in {
        "the symmetric form": "SimSiamGSG, symmetric",
        "a random choice": f"{longer}, random",
    }.items():
        of = "(SimSiam, two views, 40 epochs)"
        found.append(Claim(f"guiding beats {text} {of}", "GSG, table 1", longer, baseline, "stop_gradient", epochs=40))
    return found


REMOVED = "false negatives removed"
CLAIMS = [
    *(_rotation(name, f"{name} + rotation", name) for name in ("SimCLR", "SimSiam", "SwAV")),
    _rotation("BYOL", "BYOL + rotation", "BYOL", " (weight 1, momentum 0.95)"),
    _rotation("BYOL", "BYOL + rotation, weight 5", "BYOL", " (weight 5, momentum 0.95)"),
    _rotation("BYOL", "BYOL + rotation, momentum 0.99", "BYOL, momentum 0.99", " (our defaults: 1, 0.99)"),
    _rotation("BYOL", "BYOL + rotation, momentum 0.99, weight 5", "BYOL, momentum 0.99", " (weight 5, momentum 0.99)"),
    _rotation("BYOL", "BYOL + rotation, printed rate", "BYOL, printed rate", " (the printed rate, SGD)"),
    _rotation("BYOL", "BYOL + rotation, printed rate, LARS", "BYOL, printed rate, LARS", " (the printed rate, LARS)"),
    Claim(
        "noise in 0.3 of rotation's labels lowers the accuracy",
        "EffSSL, section 3",
        "SimCLR + rotation",
        "SimCLR + rotation, label noise 0.3",
        "aux",
    ),
    Claim("rotating the views lowers the accuracy", "EffSSL, section 3", "SimCLR", "SimCLR, turned views", "augment"),
    Claim(
        "removing false negatives helps SimCLR", "EffSSL, table 2", f"SimCLR, {REMOVED}", "SimCLR", "false_negatives"
    ),
    *(
        Claim(
            f"removing false negatives by {share} % of the labels helps SimCLR",
            "EffSSL, table 2",
            f"SimCLR, {REMOVED} by {share} % of the labels",
            "SimCLR",
            "false_negatives",
        )
        for share in (50, 30)
    ),
    Claim(
        "removing false negatives helps SimCLR with rotation",
        "EffSSL, table 2",
        f"SimCLR + rotation, {REMOVED}",
        "SimCLR + rotation",
        "false_negatives",
    ),
    Claim(
        "removing false negatives by 30 % of the labels helps SimCLR with rotation",
        "EffSSL, table 2",
        f"SimCLR + rotation, {REMOVED} by 30 % of the labels",
        "SimCLR + rotation",
        "false_negatives",
    ),
    *_guiding(),
    Claim("LeOCLR beats MoCo v2", "LeOCLR, tables 1 and 5", "LeOCLR", "MoCo, LeOCLR's settings", "method"),
    Claim("a whole first view beats a crop", "LeOCLR, figure 4", "LeOCLR", "LeOCLR, original cropped", "crop_original"),
]
DEFAULTED = ("augment", "optimizer", "lr", "weight_decay", "schedule", "warmup_epochs")
UNUSED = {"aux_weight": {"aux": None}, "label_fraction": {"false_negatives": "keep"}, "pairing": SYMMETRIC}


def settings(name: str) -> dict[str, Any]:
    """Return what a row is trained with: the method, its arguments, and its defaults for the others."""
    method, params = METHODS[name]
    estimator = method(**params)
    found = {key: getattr(estimator, key) for key in estimator.get_params(deep=False)}
    unused = [key for key, when in UNUSED.items() if all(found.get(name) == value for name, value in when.items())]
    found |= {key: estimator.setting(key) for key in DEFAULTED}
    found |= {"method": method.__name__, "a crop": estimator._augmentations(side=32)[-1]}
    return {key: repr(value) for key, value in found.items() if key not in unused}


def differences(better: str, baseline: str) -> list[str]:
    """Return the names of the settings in which two rows differ, of those that both have.

    The views are compared by the name of the augmentation if the method is the same, otherwise by the last view.
    """
    one, other = settings(better), settings(baseline)
    left_out = "a crop" if one["method"] == other["method"] else "augment"
    return sorted(key for key in one.keys() & other.keys() - {left_out} if one[key] != other[key])


def verdict(better: pd.Series, baseline: pd.Series) -> str:
    """Return whether the scores of the seeds confirm that `better` is higher: by Welch's t test, if it can be made."""
    if min(len(better), len(baseline)) < 2:
        return "one seed"
    difference = better.mean() - baseline.mean()
    if ttest_ind(better, baseline, equal_var=False).pvalue >= LEVEL:
        return "undecided"
    return "yes" if difference > 0 else "the opposite"


def table(rows: pd.DataFrame, backbone: str = "convnet") -> pd.DataFrame:
    """Return a row for each claim whose two rows are recorded: the kNN accuracies, the difference and the verdict."""
    cpu = rows[(rows["backbone"] == backbone) & ~rows["hardware"].str.startswith("NVIDIA")]
    cpu = cpu.drop_duplicates(["method", "seed", "epochs"], keep="last")
    found = []
    for claim in CLAIMS:
        of = cpu[cpu["epochs"] == claim.epochs].groupby("method")["knn"]
        if not {claim.better, claim.baseline} <= set(of.groups):
            continue
        better, baseline = of.get_group(claim.better), of.get_group(claim.baseline)
        both = cpu.loc[better.index.union(baseline.index), "hardware"]
        found.append(
            {
                "claim": claim.text,
                "paper": claim.source,
                "row": claim.better,
                "baseline": claim.baseline,
                "kNN": shown(better),
                "kNN of the baseline": shown(baseline),
                "difference": f"{better.mean() - baseline.mean():+.3f}",
                "seeds": f"{len(better)}, {len(baseline)}",
                "processors": both.str.partition(",")[0].nunique(),
                "confirmed?": verdict(better, baseline),
            }
        )
    return pd.DataFrame(found)


def shown(scores: pd.Series) -> str:
    """Return the mean over the seeds, with the standard deviation if there are several."""
    return f"{scores.mean():.3f}" + (f" ± {scores.std():.3f}" if len(scores) > 1 else "")


def main() -> None:
    """Print the claims with their verdicts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="convnet")
    arguments = parser.parse_args()
    rows = read("methods", keep_default_na=False)
    print(table(rows, arguments.backbone).to_string(index=False))


if __name__ == "__main__":
    main()
