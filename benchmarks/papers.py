"""Every table and figure of the four papers: what it shows, the commands that make it, and where they run.

"here" is the same comparison at a small scale on two CPU cores. "one GPU" and "cluster" are the paper's own scale. The
numbers of some tables could not be read. Their entries are named by the section or the content, and one entry lists the
numbers that are left.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

PAPERS = {
    "EffSSL": "Towards Efficient and Effective Self-Supervised Learning of Visual Representations, ECCV 2022",
    "GSG": "Implicit Contrastive Representation Learning with Guided Stop-gradient, NeurIPS 2023",
    "NT-Xent report": "Improving Self-Supervised Representation Learning by Rotation Feature Decoupling & NT-Xent Loss",
    "LeOCLR": "Leveraging Original Images for Contrastive Learning of Visual Representations, arXiv:2403.06813",
}
PLACES = ("here", "one GPU", "cluster")

#: Where a command runs, and its arguments after ``python -m benchmarks``.
Run = tuple[str, list[str]]


@dataclass(frozen=True)
class Entry:
    """A table or figure of a paper.

    Parameters
    ----------
    paper : str
        A key of `PAPERS`.
    item : str
        The table or figure.
    shows : str
        What it shows.
    runs : tuple of (str, list of str)
        The commands in their order: where each runs, and its arguments after ``python -m benchmarks``.
    note : str, default=""
        What is not known, or not made.
    """

    paper: str
    item: str
    shows: str
    runs: tuple[Run, ...] = ()
    note: str = ""

    def commands(self) -> list[tuple[str, str]]:
        """Return where each command runs, and the command."""
        return [(where, " ".join(["python -m benchmarks", *map(_quoted, words)])) for where, words in self.runs]


def _quoted(word: str) -> str:
    """Return a word as a shell reads it; names have apostrophes, so the quotes are double."""
    return word if re.fullmatch(r"[\w./-]+", word) else f'"{word}"'


def _run(where: str, script: str, *names: str, **options: Any) -> Run:
    """Return a command with options, whose values may be lists."""
    words = [script, *names]
    for option, value in options.items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{option.replace('_', '-')}", *map(str, values)]
    return where, words


def _here(*names: str) -> Run:
    return _run("here", "methods", *names, seeds=[0, 1, 2])


def _tables(data: str, *names: str, **options: Any) -> Run:
    return _run("cluster" if data == "imagenet" else "one GPU", "tables", *names, data=data, **options)


def _transfer(where: str, of: str, names: list[str], **options: Any) -> Run:
    """Return the transfer of encoders that ``benchmarks tables --save encoders`` wrote."""
    return _run(where, "transfer", *(f"encoders/{of}-{name}-0.safetensors" for name in names), **options)


def _fine_tuned(data: str, names: list[str], *titles: str) -> Run:
    where = "cluster" if data == "imagenet" else "one GPU"
    return _transfer(where, data, names, data=data, fine_tune=list(titles))


def _with_rotation(*bases: str) -> list[str]:
    return [name for base in bases for name in (base, f"{base} + rotation")]


_FOUR = _with_rotation("SimCLR", "BYOL", "SwAV", "SimSiam")
_REMOVED = ["", " by 50 % of the labels", " by 30 % of the labels"]
_FALSE_NEGATIVES = [
    f"{base}, false negatives removed{share}" for base in _with_rotation("SimCLR") for share in _REMOVED
]
_IMAGENET100 = ["RotNet", *_with_rotation("BYOL", "SimCLR", "SwAV")]
_SALIENT = [f"{base}, {share} % saliency-guided crops" for base in _with_rotation("BYOL") for share in (0, 25, 50, 100)]
_ANGLES = [
    *(f"{angles} degrees" for angles in ("0 and 180", "90 and 270", "0 and 90", "0 and 270")),
    *("diagonal angles", "8 angles", "12 angles"),
]
_SHARED = [f"shared to {layer}" for layer in ("conv1", "layer1", "layer2", "layer3", "backbone")]
_NOISES = [f"BYOL + rotation, label noise {noise}" for noise in (0.1, 0.3, 0.5, 0.7)]
_SUPCON = [
    f"{base}, EffSSL's{noise}"
    for base in _with_rotation("SupCon")
    for noise in ("", ", label noise 0.3", ", label noise 0.6")
]
_TUNED = ["SwAV, PCL and EffSSL, 1 %", "SwAV, PCL and EffSSL, 10 %"]
_SHORT = ["SwAV, 30 epochs", "SwAV + rotation, 30 epochs"]
_LENGTHS = [f"{base}, {epochs} epochs, 2 x 224" for epochs in (35, 50, 100) for base in _with_rotation("SwAV")]

EFFSSL = (
    Entry(
        "EffSSL",
        "table 2",
        "false negatives of SimCLR removed by 0, 30, 50 and 100 % of the labels, with and without rotation, CIFAR-10",
        (
            _here(
                "SimCLR",
                "SimCLR + rotation",
                *(n for n in _FALSE_NEGATIVES if n != f"SimCLR + rotation, false negatives removed{_REMOVED[1]}"),
            ),
            _tables("cifar10", *_with_rotation("SimCLR"), *_FALSE_NEGATIVES),
        ),
    ),
    Entry(
        "EffSSL",
        "table of section 3.2",
        "BYOL with 0, 25, 50 and 100 % of the crops chosen by saliency, with and without rotation, ImageNet-100",
        (_tables("imagenet100", *_SALIENT, saliency="maps.npy"),),
        "maps.npy holds the maps of skssl.augment.grad_cam for a supervised network. The number of the table and its "
        "epochs are not known",
    ),
    Entry(
        "EffSSL",
        "table 4",
        "rotation and contrastive accuracy at the backbone and the projector, CIFAR-10",
        (
            _run("here", "pretext_accuracy", seeds=[0, 1, 2]),
            _run("one GPU", "pretext_accuracy", backbone="resnet18", epochs=200, images=50_000),
        ),
        "The row of a supervised network is not made. Both commands have the settings of `benchmarks methods`",
    ),
    Entry(
        "EffSSL",
        "table 5",
        "kNN and linear accuracy of RotNet, SimCLR, BYOL, SwAV and SimSiam, with and without rotation, on CIFAR",
        (_here("RotNet", *_FOUR), _tables("cifar10", "RotNet", *_FOUR), _tables("cifar100", "RotNet", *_FOUR)),
    ),
    Entry(
        "EffSSL",
        "table of ImageNet-100",
        "linear accuracy of RotNet, and of BYOL, SimCLR and SwAV with and without rotation",
        (_tables("imagenet100", *_IMAGENET100, save="encoders"),),
        "The number of the table is not known",
    ),
    Entry(
        "EffSSL",
        "table of ImageNet-100 with few labels",
        "the same networks, fine-tuned on 1 and 10 % of the labels",
        (
            _run("here", "few_labels", seeds=[0, 1, 2]),
            _fine_tuned("imagenet100", _IMAGENET100, *_TUNED),
        ),
        "The encoders are those of the entry before. The number of the table is not known",
    ),
    Entry(
        "EffSSL",
        "table of ImageNet",
        "SwAV with and without rotation after 30 epochs: linear, and fine-tuned on 1 and 10 % of the labels",
        (
            _tables("imagenet", *_SHORT, save="encoders"),
            _fine_tuned("imagenet", _SHORT, *_TUNED),
        ),
        "The number of the table is not known",
    ),
    Entry(
        "EffSSL",
        "table of longer trainings on ImageNet",
        "SwAV with and without rotation after 35, 50 and 100 epochs, and after 50 with multi-crop",
        (_tables("imagenet", *_LENGTHS, "SwAV, 50 epochs", "SwAV + rotation, 50 epochs"),),
        "The number of the table is not known, nor are the scores of the baselines on two crops",
    ),
    Entry(
        "EffSSL",
        "table of section 5.5",
        "BYOL with the jigsaw task, with rotation and with both, beside RotNet and Jigsaw, ImageNet-100",
        (
            _here("SimCLR", "SimCLR + jigsaw", "SimCLR + rotation"),
            _tables(
                "imagenet100", "RotNet", "Jigsaw", *_with_rotation("BYOL"), "BYOL + jigsaw", "BYOL + jigsaw + rotation"
            ),
        ),
        "The number of the table and the weight of the jigsaw task are not known",
    ),
    Entry(
        "EffSSL",
        "table of the angles",
        "BYOL with rotation by 2, 4, 8 and 12 angles, CIFAR-100",
        (_tables("cifar100", *_with_rotation("BYOL"), *(f"BYOL + rotation, {angles}" for angles in _ANGLES)),),
        "The number of the table is not known. Which angles a row has is inferred",
    ),
    Entry(
        "EffSSL",
        "table S2",
        "the last layer that the rotation task shares with BYOL, CIFAR-100",
        (_tables("cifar100", *_with_rotation("BYOL"), *(f"BYOL + rotation, {shared}" for shared in _SHARED)),),
    ),
    Entry(
        "EffSSL",
        "table of the task's loss",
        "cross-entropy, SupCon and cosine losses of the task, and rotation as an augmentation, BYOL, CIFAR-10",
        (
            _here("SimCLR", "SimCLR, turned views", "SimCLR + rotation"),
            _tables(
                "cifar10",
                *_with_rotation("BYOL"),
                *(f"BYOL + rotation, {loss} loss" for loss in ("SupCon", "cosine")),
                *(f"{base}, turned views" for base in _with_rotation("BYOL")),
            ),
        ),
        "The number of the table is not known",
    ),
    Entry(
        "EffSSL",
        "table of colour jitter",
        "BYOL with and without rotation, without colour jitter, CIFAR-10",
        (
            _tables(
                "cifar10", *_with_rotation("BYOL"), *(f"{base}, no colour jitter" for base in _with_rotation("BYOL"))
            ),
        ),
        "The number of the table is not known",
    ),
    Entry(
        "EffSSL",
        "table of noisy rotation labels",
        "BYOL with rotation by the noise in the task's labels: linear, rotation and contrastive accuracy, CIFAR-10",
        (
            _here("SimCLR", "SimCLR + rotation", "SimCLR + rotation, label noise 0.3"),
            _run("here", "pretext_accuracy", "SimCLR + rotation", "SimCLR + rotation, label noise 0.3"),
            _tables("cifar10", *_NOISES),
        ),
        "The number of the table and its four levels of noise are not known",
    ),
    Entry(
        "EffSSL",
        "tables 1, 3, 6 to 9, S1, S3, S4",
        "the tables above without a number",
        note="Which of them has which number is not known, nor whether a further one exists",
    ),
    Entry("EffSSL", "figures 1 and 2", "not known", note="What they show could not be read"),
    Entry(
        "EffSSL",
        "figures 3 to 5",
        "accuracy by epoch, with and without rotation",
        (_run("here", "curves", *_FOUR), _run("one GPU", "curves", *_FOUR, data="cifar10")),
        "Which methods each of them shows is not known",
    ),
    Entry(
        "EffSSL",
        "figure of SupCon with noisy labels",
        "SupCon with and without rotation, by the share of wrong class labels, CIFAR-10",
        (_here("SupCon"), _tables("cifar10", *_SUPCON)),
        "The number of the figure, its levels and its scores are not known. At the small scale there is SupCon alone",
    ),
    Entry("EffSSL", "section S1", "not known", note="Its equations are the losses of RotNet, SimCLR and BYOL"),
    Entry("EffSSL", "section S2", "saliency-guided crops in detail", note="Made by the entry of section 3.2"),
    Entry("EffSSL", "section S3", "not known", note="What it shows could not be read"),
    Entry("EffSSL", "section S4", "settings, weights of the task and linear probes", note="They are in skssl.recipes"),
    Entry("EffSSL", "section S5", "not known", note="What it shows could not be read"),
    Entry(
        "EffSSL",
        "section S6",
        "the gradient's signal-to-noise ratio by epoch, SimSiam with and without rotation, CIFAR-10",
        (
            _run("here", "gradient_snr", seeds=[0, 1, 2]),
            _run("one GPU", "gradient_snr", backbone="resnet18", epochs=200, images=50_000),
        ),
        "The decay of the averages is not stated. Both commands have the settings of `benchmarks methods`",
    ),
)

_GUIDED = ["SimSiam, GSG's baseline", "SimSiamGSG", "BYOL, GSG's baseline", "BYOLGSG"]
_STOPPED = [f"{method}, {kind}" for method in ("SimSiamGSG", "BYOLGSG") for kind in ("random", "reverse")]
_SYMMETRIC = ["SimSiamGSG, symmetric", "BYOLGSG, symmetric"]
_UNPREDICTED = [f"{name}, no predictor" for name in _GUIDED]
_SMALL_BATCHES = [
    f"{method}, {kind}, batch 64" for method in ("SimSiamGSG", "BYOLGSG") for kind in ("symmetric", "shared views")
]
_GSG_BATCHES = [f"{method}, batch {size}" for method in ("SimSiamGSG", "BYOLGSG") for size in (1024, 256)]
_VOC: dict[str, Any] = {
    "folder": ["VOCdevkit/VOC2007", "VOCdevkit/VOC2012"],
    "split": "trainval",
    "test_folder": "VOCdevkit/VOC2007",
    "test_split": "test",
}
_ADE20K: dict[str, Any] = {"folder": "ADEChallengeData2016", "split": "training", "test_split": "validation"}
_TRANSFER = "caltech101 cifar10 cifar100 dtd fgvcaircraft flowers102 food101 oxfordiiitpet stanfordcars sun397 voc2007"

GSG = (
    Entry(
        "GSG",
        "table 1",
        "kNN and linear accuracy of SimSiam and BYOL with and without guiding, CIFAR-10 and ImageNet",
        (
            _here(*_SYMMETRIC, "SimSiamGSG", "BYOLGSG"),
            _tables("cifar10", *_GUIDED, *(f"{name}, cosine" for name in _GUIDED), seeds=[0, 1, 2]),
            _tables("imagenet", *_GUIDED, save="encoders"),
        ),
        "The text has no schedule on CIFAR-10; the rows with a cosine follow the code that it cites",
    ),
    Entry(
        "GSG",
        "tables 2 and 3",
        "transfer of the networks of ImageNet: linear on other data sets (appendix D), detection and segmentation",
        (
            _transfer("one GPU", "imagenet", _GUIDED, linear=_TRANSFER.split()),
            _transfer("one GPU", "imagenet", _GUIDED, dense="GSG and Ericsson et al., VOC07+12", **_VOC),
            _transfer("one GPU", "imagenet", _GUIDED, dense="Ericsson et al., ADE20K", **_ADE20K),
        ),
        "Which of the two tables shows what, the scores, and all of the data sets are not known",
    ),
    Entry(
        "GSG",
        "table 4",
        "linear accuracy by batch size, 1,024, 512 and 256, ImageNet",
        (_here(*_SMALL_BATCHES), _tables("imagenet", "SimSiamGSG", "BYOLGSG", *_GSG_BATCHES)),
        "Its scores of SimCLR are those of SimCLR's paper. At the small scale batches of 64 are compared",
    ),
    Entry("GSG", "figures 1 and 2", "not known", note="What they show could not be read"),
    Entry("GSG", "figure 3", "a drawing of the method", note="Nothing is computed"),
    Entry(
        "GSG",
        "figure 4",
        "kNN by epoch of the guided, random and reverse choice, CIFAR-10",
        (
            _run("here", "curves", *_SYMMETRIC, "SimSiamGSG", "BYOLGSG", *_STOPPED),
            _run("one GPU", "curves", *_GUIDED, *_STOPPED, data="cifar10"),
        ),
    ),
    Entry(
        "GSG",
        "figure 5",
        "kNN by epoch without a predictor, 400 epochs, CIFAR-10",
        (
            _run(
                "here",
                "curves",
                *(
                    f"{method}{kind}, no predictor"
                    for method in ("SimSiamGSG", "BYOLGSG")
                    for kind in ("", ", symmetric")
                ),
            ),
            _run("one GPU", "curves", *_UNPREDICTED, data="cifar10"),
        ),
    ),
    Entry(
        "GSG", "appendix D", "settings of the transfer to other data sets", note="Made by the entry of tables 2 and 3"
    ),
    Entry("GSG", "appendix F", "not known", note="What it shows could not be read"),
)

_DECOUPLED = ["RotationDecoupling", "RotationDecoupling, NT-Xent"]
_NUMBER = "The numbers of the report's tables are not known"

REPORT = (
    Entry(
        "NT-Xent report",
        "Tiny-ImageNet, linear",
        "linear accuracy of the last convolution: the base method and NT-Xent",
        (_here(*_DECOUPLED), _tables("tiny-imagenet", *_DECOUPLED, save="encoders")),
        _NUMBER,
    ),
    Entry(
        "NT-Xent report",
        "Tiny-ImageNet, 20 % of the labels",
        "the same networks, fine-tuned on a fifth of the labels",
        (_fine_tuned("tiny-imagenet", _DECOUPLED, "RotationDecoupling, Tiny-ImageNet, 20 %"),),
        f"{_NUMBER}. The linear probe of the fine-tuned networks and the row of supervised training are not made",
    ),
    Entry(
        "NT-Xent report",
        "Tiny-ImageNet, non-linear",
        "a three-layer classifier on the last convolution",
        note=f"{_NUMBER}. The classifier has no command: MLPProbe(layer='conv5') is its nearest form",
    ),
    Entry(
        "NT-Xent report",
        "CIFAR-10 and MiniPlaces",
        "linear accuracy of the networks of Tiny-ImageNet on other data sets",
        (_transfer("one GPU", "tiny-imagenet", _DECOUPLED, linear=["cifar10"]),),
        f"{_NUMBER}. It probes the last convolution by SGD. MiniPlaces has no command",
    ),
)

_WHOLE = ["MoCo v2, 200 epochs", "LeOCLR, 200 epochs"]
_LONG = ["MoCo v2", "LeOCLR"]
_ONLY_CROPS = ["MoCo v2, crops alone", "LeOCLR, crops alone"]
_ON_CIFAR = ["MoCo v2, LeOCLR's baseline", "LeOCLR"]
_OTHER_NUMBER = "The number of the table is not known"

LEOCLR = (
    Entry(
        "LeOCLR",
        "table of ImageNet",
        "linear accuracy after 200 and 800 epochs beside MoCo v2 and published methods",
        (_here("MoCo, LeOCLR's settings", "LeOCLR"), _tables("imagenet", *_WHOLE, *_LONG, save="encoders")),
        f"{_OTHER_NUMBER}. The rows of published methods are quoted",
    ),
    Entry(
        "LeOCLR",
        "table of few labels",
        "MoCo v2 and LeOCLR fine-tuned on 1 and 10 % of ImageNet's labels",
        (_fine_tuned("imagenet", _LONG, "LeOCLR, 1 %", "LeOCLR, 10 %"),),
        f"{_OTHER_NUMBER}. Only the epochs of fine-tuning are stated",
    ),
    Entry(
        "LeOCLR",
        "table of transfer",
        "the network of ImageNet on CIFAR-10, CIFAR-100 and other data sets, and object detection",
        (
            _transfer("one GPU", "imagenet", ["LeOCLR"], linear=["cifar10", "cifar100"]),
            _transfer("one GPU", "imagenet", ["LeOCLR"], dense="MoCo v2 and DenseCL, VOC07+12", **_VOC),
        ),
        f"{_OTHER_NUMBER}. The paper fine-tunes on CIFAR; the command has linear probes. Further data are not known",
    ),
    Entry(
        "LeOCLR",
        "table 4",
        "both encoders trained end to end, beside SimCLR, 200 epochs, ImageNet",
        (_tables("imagenet", "SimCLR, LeOCLR's baseline", "LeOCLR, end-to-end"),),
    ),
    Entry(
        "LeOCLR",
        "table 5",
        "linear accuracy of MoCo v2 and LeOCLR on CIFAR-10 and STL-10, 800 epochs",
        (_here("MoCo, LeOCLR's settings", "LeOCLR"), _tables("cifar10", *_ON_CIFAR)),
        "STL-10 has no command",
    ),
    Entry(
        "LeOCLR",
        "table of random crops in the test",
        "linear accuracy of MoCo v2 and LeOCLR if the test images are cropped at random",
        note="The number of the table is not known, nor are the crops. It has no command",
    ),
    Entry(
        "LeOCLR",
        "tables 1, 2, 3 and 6",
        "the tables above without a number",
        note="Which of them has which number is not known",
    ),
    Entry("LeOCLR", "figures 1 to 3", "not known", note="What they show could not be read"),
    Entry(
        "LeOCLR",
        "figure 4",
        "the original image whole or cropped",
        (_tables("imagenet", "LeOCLR, 200 epochs", "LeOCLR, cropped original"),),
        "Its scores are not known",
    ),
    Entry(
        "LeOCLR",
        "figure 5",
        "MoCo v2 and LeOCLR with views that are only cropped, 200 epochs, ImageNet",
        (_tables("imagenet", *_WHOLE, *_ONLY_CROPS),),
        "The scores with crops alone are known; that they are figure 5 is inferred",
    ),
)

ENTRIES = (*EFFSSL, *GSG, *REPORT, *LEOCLR)


def listing() -> str:
    """Return the list of all entries as text."""
    lines = [str(__doc__)]
    for paper, title in PAPERS.items():
        lines += [f"{paper}: {title}", ""]
        for entry in ENTRIES:
            if entry.paper == paper:
                lines.append(f"  {entry.item}: {entry.shows}")
                lines += [f"    {where:8} {command}" for where, command in entry.commands()]
                lines += [f"    {entry.note}."] if entry.note else []
        lines.append("")
    return "\n".join(lines)
