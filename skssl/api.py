"""The public names of the package, imported all at once when the first of them is used."""

from skssl.augment import Augmentation, MultiCrop
from skssl.display import (
    EmbeddingDisplay,
    NeighborsDisplay,
    ResultsDisplay,
    TrainingDisplay,
    ViewsDisplay,
    report,
)
from skssl.errors import BadImageWarning, CollapseWarning, show_constructor
from skssl.methods import (
    BYOL,
    BYOLGSG,
    DINO,
    PCL,
    PIRL,
    AudioVisual,
    BarlowTwins,
    Colorization,
    ContextEncoder,
    DeepCluster,
    DeepClusterV2,
    DenseCL,
    DirectPred,
    InstDisc,
    Jigsaw,
    LeOCLR,
    MoCo,
    RelativePatch,
    RotationDecoupling,
    RotNet,
    ShuffleAndLearn,
    SimCLR,
    SimSiam,
    SimSiamGSG,
    SupCon,
    SwAV,
    VICReg,
)
from skssl.pretext import ColorizationTask, ContextEncoderTask, JigsawTask, RelativePatchTask, Rotation
from skssl.probes import KNNProbe, LinearProbe, MLPProbe
from skssl.results import Results, compare
from skssl.storage.saving import load
from skssl.storage.version import show_versions
from skssl.transfer import (
    DetectionTransfer,
    Distiller,
    FineTuner,
    SegmentationTransfer,
    label_fraction,
    transfer_table,
)

__all__ = [
    "BYOL",
    "BYOLGSG",
    "DINO",
    "PCL",
    "PIRL",
    "AudioVisual",
    "Augmentation",
    "BadImageWarning",
    "BarlowTwins",
    "CollapseWarning",
    "Colorization",
    "ColorizationTask",
    "ContextEncoder",
    "ContextEncoderTask",
    "DeepCluster",
    "DeepClusterV2",
    "DenseCL",
    "DetectionTransfer",
    "DirectPred",
    "Distiller",
    "EmbeddingDisplay",
    "FineTuner",
    "InstDisc",
    "Jigsaw",
    "JigsawTask",
    "KNNProbe",
    "LeOCLR",
    "LinearProbe",
    "MLPProbe",
    "MoCo",
    "MultiCrop",
    "NeighborsDisplay",
    "RelativePatch",
    "RelativePatchTask",
    "Results",
    "ResultsDisplay",
    "RotNet",
    "Rotation",
    "RotationDecoupling",
    "SegmentationTransfer",
    "ShuffleAndLearn",
    "SimCLR",
    "SimSiam",
    "SimSiamGSG",
    "SupCon",
    "SwAV",
    "TrainingDisplay",
    "VICReg",
    "ViewsDisplay",
    "compare",
    "label_fraction",
    "load",
    "report",
    "show_versions",
    "transfer_table",
]

_CALLS = {
    "SSLTransformer": "{name}(epochs=100, batch_size=256).fit(X)",
    "Probe": "{name}(encoder=encoder).fit(X, y), or {name}().fit(features, y)",
    "FineTuner": "FineTuner(encoder, epochs=20).fit(X, y)",
    "Distiller": "Distiller(teacher, student, epochs=100).fit(X), where teacher is a FineTuner",
    "DetectionTransfer": "DetectionTransfer(encoder).fit(folder)",
    "SegmentationTransfer": "SegmentationTransfer(encoder).fit(folder)",
    "EmbeddingDisplay": "EmbeddingDisplay.from_estimator(encoder, X, y)",
    "NeighborsDisplay": "NeighborsDisplay.from_estimator(encoder, X, y)",
    "ResultsDisplay": "ResultsDisplay.from_results(results)",
    "TrainingDisplay": "TrainingDisplay.from_estimator(encoder)",
    "ViewsDisplay": "ViewsDisplay.from_estimator(encoder, X)",
    "Results": "Results(rows), or compare(methods, X, y)",
    "Augmentation": "Augmentation(crop_scale=(0.2, 1.0), flip=0.5)",
    "MultiCrop": "MultiCrop(n_global=2, n_local=6)",
    "Task": "{name}(), with parameters by name",
}

for _name in __all__:
    _kinds = [_kind.__name__ for _kind in getattr(globals()[_name], "__mro__", ())]
    _call = next((_CALLS[_kind] for _kind in _kinds if _kind in _CALLS), None)
    if _call is not None:
        show_constructor(_call.format(name=_name))(globals()[_name])
