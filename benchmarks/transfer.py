"""Transfer of trained encoders: few labels, other data sets, detection and segmentation.

The encoders are files that ``benchmarks tables --save`` or `save` of an estimator wrote. --fine-tune takes recipes of
`skssl.recipes.FINE_TUNING`, with the share of labels in their name, on the data set of --data. --linear takes data sets
of `skssl.transfer_table`. --dense takes a recipe of `skssl.recipes.DENSE`, which is trained on a split of one or more
folders and evaluated on another. Each score is a row of ``results/transfer.csv``.

    python -m benchmarks transfer ENCODER ... [--data imagenet100 --fine-tune NAME ...] [--linear NAME ...]
                                  [--dense NAME --folder FOLDER ... --split train --test-split val]
                                  [--seeds 0] [--results FOLDER]
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sklearn.metrics import top_k_accuracy_score

import skssl
from benchmarks.record import RESULTS, record
from benchmarks.tables import DATA, load
from skssl import recipes


def fine_tune(encoder: Any, title: str, data: str, images: int | None, seed: int, **changes: Any) -> dict[str, float]:
    """Fine-tune on the share of labels that the title of a recipe names; return the accuracies on the test images."""
    X, y, X_test, y_test = load(data, images)
    share = int(re.findall(r"(\d+) %", title)[0]) / 100
    known = skssl.label_fraction(y, share, random_state=seed)
    tuner = recipes.make(recipes.FINE_TUNING[title], encoder=encoder, random_state=seed, verbose=1, **changes)
    scores = tuner.fit(X, known).predict_proba(X_test)
    return {
        f"top-{k}": float(top_k_accuracy_score(y_test, scores, k=k, labels=tuner.classes_))
        for k in (1, 5)
        if len(tuner.classes_) > max(k, 2)
    }


def transfers(encoder: Any, asked: argparse.Namespace, seed: int) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Yield the task, the data and the scores of each transfer."""
    changes = {} if asked.epochs is None else {"epochs": asked.epochs}
    for title in asked.fine_tune:
        yield f"fine-tuning, {title}", asked.data, fine_tune(encoder, title, asked.data, asked.images, seed, **changes)
    if asked.linear:
        table = skssl.transfer_table(encoder, asked.linear, download=asked.download, random_state=seed, verbose=1)
        for row in table.to_dict("records"):
            yield "linear", row["dataset"], {row["metric"]: row["score"]}
    if asked.dense is not None:
        recipe = recipes.DENSE[asked.dense]
        head = recipes.make(recipe, encoder=encoder, random_state=seed, verbose=1, **changes)
        test = asked.test_folder or asked.folder
        found = head.fit(asked.folder, asked.split).evaluate(test, asked.test_split)
        yield asked.dense, ", ".join(folder.name for folder in test), found


def main() -> None:
    """Load the encoders, and run the selected transfers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoders", type=Path, nargs="+", metavar="ENCODER")
    parser.add_argument("--data", choices=list(DATA), default="cifar10", help="data set of --fine-tune")
    tunings = [title for title in recipes.FINE_TUNING if "%" in title]
    parser.add_argument("--fine-tune", nargs="+", default=[], choices=tunings, metavar="NAME")
    parser.add_argument("--linear", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--download", action="store_true", help="download missing data sets of --linear")
    parser.add_argument("--dense", choices=list(recipes.DENSE), metavar="NAME")
    parser.add_argument("--folder", type=Path, nargs="+", help="annotated images of --dense, such as VOCdevkit/VOC2007")
    parser.add_argument("--split", default="train", help="of the folders")
    parser.add_argument("--test-folder", type=Path, nargs="+", help="the same folders by default")
    parser.add_argument("--test-split", default="val")
    parser.add_argument("--images", type=int, help="number of training images of --fine-tune, all by default")
    parser.add_argument("--epochs", type=int, help="those of the recipe by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    if (asked.dense is None) != (asked.folder is None):
        parser.error("--dense and --folder go together.")
    for file, seed in itertools.product(asked.encoders, asked.seeds):
        for task, data, scores in transfers(skssl.load(file), asked, seed):
            row = {"encoder": file.stem, "task": task, "data": data, "seed": seed}
            rows = [{**row, "measure": measure, "score": score} for measure, score in scores.items()]
            record("transfer", rows, asked.results)


if __name__ == "__main__":
    main()
