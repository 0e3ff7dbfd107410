"""The figures in README.md and in the prose of the pages, computed from the recorded rows.

``python docs/figures.py`` writes README's tables, and prints the sentences that differ from the rows.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "benchmarks" / "results"
LOOPS = {  # README's names of the loops in gpu.csv
    "`SimCLR().fit(X)` of a long training": "fit, graph",
    "a bare loop on ready-made views": "bare loop",
    "the same, compiled": "bare loop, compiled",
    "Kornia's views on the GPU": "kornia",
    "lightly's own loop, 16 workers, float32": "lightly",
}


def rows(name: str) -> pd.DataFrame:
    """Return the recorded rows of a benchmark."""
    return pd.read_csv(RECORDED / f"{name}.csv", dtype={"commit": str})


def gpu() -> tuple[pd.DataFrame, str, str]:
    """Return SimCLR's images per second by loop, batch and commit, and two commits: that of all loops, and the last."""
    found = rows("gpu").query("method == 'SimCLR' and hardware == 'NVIDIA H200' and error.isna()")
    all_loops, last = (found.loc[found["loop"] == loop, "commit"].iloc[-1] for loop in ("lightly", "fit, graph"))
    return found.groupby(["loop", "batch", "commit"])["images_per_second"].last(), all_loops, last


def speed_table() -> str:
    """Return README's table of images per second on a GPU, of the last commit at which all loops ran on one machine."""
    speed, commit, _ = gpu()
    lines = ["| one NVIDIA H200, bfloat16 | batches of 512 | batches of 256 |", "|---|---|---|"]
    for title, loop in LOOPS.items():
        found = [speed.get((loop, batch, commit)) for batch in (512, 256)]
        lines.append(f"| {title} | " + " | ".join("" if of is None else hundreds(of) for of in found) + " |")
    return "\n".join(lines)


def demo_table() -> str:
    """Return README's table of what the demo prints; the best of each column is bold."""
    table = rows("demo").drop_duplicates("encoder", keep="last").set_index("encoder")
    table = table[["linear, 50 labels per class", "linear, 500 labels per class", "20 nearest neighbours"]]
    lines = ["|  | " + " | ".join(table) + " |", "|---" * 4 + "|"]
    for title, scores in table.iterrows():
        cells = [f"**{score:.3f}**" if score == table[name].max() else f"{score:.3f}" for name, score in scores.items()]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def with_tables(text: str) -> str:
    """Return README's text with its tables made anew: each is found by its first line."""
    for table in (speed_table(), demo_table()):
        first = table.partition("\n")[0]
        text, found = re.subn(re.escape(first) + r"\n(\|.*\n)+", lambda _, table=table: table + "\n", text)
        if found != 1:
            raise ValueError(f"README.md has {found} tables with the first line {first!r}.")
    return text


def sentences() -> dict[str, list[str]]:
    """Return the parts of each page's sentences that hold figures, as the rows give them."""
    speed, commit, last = gpu()
    graph = {batch: speed["fit, graph", batch, last] for batch in (512, 256)}
    at_256 = speed["fit, graph", 256, commit] / speed["fit, compiled", 256, commit]
    bare = sorted(speed["bare loop, compiled", 256])
    saved = [1000 * b * (1 / speed["fit, eager", b, commit] - 1 / speed["fit, graph", b, commit]) for b in (256, 512)]

    keys = ["backbone", "method", "loop"]
    throughput = rows("throughput").drop_duplicates(["hardware", *keys], keep="last").set_index(keys)
    on_xeon = throughput["hardware"].str.contains("Xeon")
    faster, vit = throughput[on_xeon]["fit_is_faster_by"], throughput[~on_xeon].loc["vit_micro"]
    on_epyc = throughput[~on_xeon]["fit_is_faster_by"]
    leoclr = 1 / faster["convnet", "LeOCLR", "own passes"] - 1
    own = 1 / faster["convnet", :, "own passes"].median() - 1

    parts = ["views", "compiled", "convolutions", "BatchNorm", "ReLU and sums", "optimiser", "all else"]
    profile = rows("profile").drop_duplicates(["backbone", "step"], keep="last").set_index(["backbone", "step"])[parts]
    step = profile.loc[("convnet", "eager")]

    race = rows("race").query("track == 'CPU' or hardware == 'NVIDIA H200'").groupby(["track", "entry", "seed"]).last()
    cpu, on_gpu = race.loc["CPU", "record"], race.loc["GPU", "record"]
    tried = race["linear"].loc["CPU", :, 0]
    epochs = race["epochs"].loc["CPU", :, 0]

    photographs = rows("photographs_quality").groupby(["run", "seed"])["knn"].last()
    lead = sorted((341 * (photographs["whole"] - photographs["cut"])).round().astype(int))
    separable = rows("probes").query("device == 'cpu'").groupby("job").last().loc["linear, separable, tol=1e-6"]
    baseline = race.loc[("CPU", "random whitened patches, no training", 0)]
    clips = rows("clips").groupby(["method", "epochs", "seed"]).last(numeric_only=True)
    clips = clips.groupby(["method", "epochs"])[["shape", "motion", "sound map"]].mean()

    def points(method: str, measure: str) -> int:
        """Return by how many points of accuracy a method's encoders lead the untrained ones."""
        of = clips.loc[method, measure]
        return round(100 * (of[of.index.max()] - of[0]))

    demo = rows("demo").iloc[-1]

    return {
        "README.md": [
            f"takes about {demo['total_seconds']:.0f} seconds on two cores of an {demo['hardware'].partition(',')[0]}",
            f"After {cpu['seconds'].mean():.0f} seconds of training the settings of the race reach "
            f"{cpu['linear'].mean():.3f} ± {cpu['linear'].std():.3f} ({seeds(cpu)})",
            f"All of these ran in turn on one machine (commit {commit}).",
            f"A later commit, {last}, reached {hundreds(graph[512])} and {hundreds(graph[256])} on another machine",
            f"reaches {on_gpu['linear'].mean():.3f} after {on_gpu['seconds'].mean():.0f} seconds ({seeds(on_gpu)})",
            f"`fit` is {faster['resnet18', 'SimCLR', 'lightly']:.1f} times as fast as lightly's loop with a ResNet-18, "
            f'and {faster["convnet", "SimCLR", "lightly"]:.1f} times with "convnet"',
            f"on two of an EPYC with AVX512_BF16 {on_epyc['resnet18', 'SimCLR', 'lightly']:.1f} and "
            f"{on_epyc['convnet', 'SimCLR', 'lightly']:.1f} times",
        ],
        "docs/benchmarks.md": [
            f"costs about {round(100 * own)} % more than its own passes",
            f"(512 views take about {step['views']:.0f} ms, a step about {step.sum():.0f})",
            f"LeOCLR, with three views and a short step, costs {round(100 * leoclr)} % more",
            f"at 256 images the step is {at_256:.1f} times as fast",
            f"a bare compiled loop reached {', '.join(map(hundreds, bare[:-1]))} and {hundreds(bare[-1])}",
            f"by {lead[0]} to {lead[-1]} of the 341 test pictures",
            f"the losses agree to within {100 * (separable['sklearn_loss'] / separable['loss'] - 1):.1f} %",
            *(
                f"{before} {points(method, 'shape')}{between} {points(method, 'motion')}"
                for method, before, between in (
                    ("ShuffleAndLearn", "improves shape by", " points and motion by"),
                    ("AudioVisual, localize", "`AudioVisual` by", " and"),
                    ("SpotArtifacts", "it improves shape by", " points, and motion, of which it sees nothing, by"),
                )
            ),
            f"points at the shape in {100 * clips.loc[('AudioVisual, localize', 20), 'sound map']:.0f} % of the clips",
            f"is {vit.loc[('SimCLR', 'bare loop'), 'fit_is_faster_by']:.2f} times as fast as that of the bare loop",
            f"trains on {hundreds(vit.loc[('MAE', 'fit'), 'images_per_second'])} images per second with the same",
        ],
        "docs/race.md": [
            f"in place of the average of the last map ({gain(tried, 'two stages on a 3x3 grid', 'bfloat16')})",
            f"leave time for {number(epochs['bfloat16'] - epochs['SimCLR'])} more epochs "
            f"({gain(tried, 'bfloat16', 'SimCLR')})",
            f"they gained {gain(tried, 'crops of a fifth and more', 'two stages on a 3x3 grid')}, but the record with "
            f"the same seed and one epoch less is only {gain(tried, 'record', 'two stages on a 3x3 grid')} better",
            f"reach {baseline['linear']:.3f} with the same judge. This is no entry, as `transform` makes "
            f"{hundreds(baseline['transform'])} images per second",
            f"`transform` is {round(cpu['transform'].min() / 3000)} times as fast as the rules ask",
            f"{on_gpu['epochs'].iloc[0]} epochs in {on_gpu['seconds'].iloc[0]:.0f} seconds",
        ],
        "docs/guide/scale.md": [
            f"saves {saved[0]:.1f} milliseconds of a step of 256 images of 32x32, and {saved[1]:.1f} of one of 512",
        ],
    }


def hundreds(value: float) -> str:
    """Return a number, rounded to hundreds."""
    return f"{round(value, -2):,.0f}"


def gain(scores: pd.Series, entry: str, of: str) -> str:
    """Return how much better an entry of the race is than the one that it changes."""
    return f"{scores[entry] - scores[of]:.3f}"


def seeds(runs: pd.DataFrame) -> str:
    """Return the number of seeds in words."""
    return f"{number(len(runs))} seed{'s' * (len(runs) > 1)}"


def number(value: int) -> str:
    """Return a small number as a word."""
    return ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"][value]


def missing() -> dict[str, list[str]]:
    """Return the sentences that the pages lack, however their lines are broken."""
    texts = {page: " ".join((ROOT / page).read_text(encoding="utf-8").split()) for page in sentences()}
    return {page: [part for part in found if part not in texts[page]] for page, found in sentences().items()}


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_tables(readme.read_text(encoding="utf-8")), encoding="utf-8")
    for page, parts in missing().items():
        for part in parts:
            print(f"{page} lacks: {part}")
