"""Recipes: the papers' settings by data set, with their source and the reported scores.

A recipe is a dict with

- "method": the name of the estimator, and "params", its arguments; missing ones have their defaults;
- "linear" and "knn": the reported accuracy in per cent, or None, and "scores", other reported ones by name;
- "source", and "origin": where the value of each argument comes from, which is "printed" in the paper, "code" (of its
  authors, or of the third party that the source names) or "inferred", where neither states it;
- "protocol": the arguments of `LinearProbe` and `KNNProbe` by which the source judges, see `make_probes`. Empty ones
  mean that the source has a protocol of its own, or none.

EffSSL's batch of 512 images, its warm-up of 10 epochs and LARS for BYOL are inferred, for all data sets. Its learning
rates for SimSiam, 0.07 and 0.05, are used as printed. The code that EffSSL cites multiplies the rate by ``batch_size /
256``, which would make them 0.14 and 0.1. The text states neither this factor nor the batch size, and 0.07 is near to
the 0.06 for 512 images of SimSiam's appendix D and of GSG. "not checked" in the source means that the settings or the
score are not verified.

``FINE_TUNING`` holds the settings of `FineTuner` by share of labels, for ImageNet unless another data set is named. Its
recipes have no scores, which depend on the encoder. `make` requires the ``encoder`` for them.

``DENSE`` holds the settings of `DetectionTransfer` and `SegmentationTransfer` by paper and data set, in the same form.
The papers count steps, which are converted to epochs here. Their scores are those of ImageNet's encoders.

``VIDEO`` holds the settings of the methods that train on clips, for several data sets. ``RACE`` holds our own settings
for the best features in two minutes on two CPU cores, and in three on a GPU.

>>> from skssl import recipes
>>> recipe = recipes.CIFAR10["BYOL + rotation"]
>>> recipe["linear"], recipe["source"]
(91.89, 'EffSSL, section 4 and table 5')
>>> recipes.make(recipe, epochs=20, random_state=0)
BYOL(aux='rotation', aux_weight=5.0, batch_size=512, ema_momentum=0.95,
     epochs=20, lr=0.8, optimizer='lars', random_state=0, warmup_epochs=10)

Sources other than the papers and the code of the methods. EffSSL: Towards Efficient and Effective Self-Supervised
Learning of Visual Representations, ECCV 2022. GSG: Implicit Contrastive Representation Learning with Guided Stop-
gradient, NeurIPS 2023. LeOCLR: arXiv:2403.06813. NT-Xent report: Improving Self-Supervised Representation Learning by
Rotation Feature Decoupling & NT-Xent Loss. solo-learn: da Costa et al., JMLR 2022, and the tables and scripts of its
repository; its learning rates are used unless the optimiser is LARS, which differs (a trust coefficient of 0.02, with
clipping). lightly: the tables of its documentation and its benchmark scripts.
"""

from skssl.recipes.building import make, make_probes
from skssl.recipes.cifar10 import CIFAR10
from skssl.recipes.cifar100 import CIFAR100
from skssl.recipes.dense import DENSE
from skssl.recipes.fine_tuning import FINE_TUNING
from skssl.recipes.imagenet import IMAGENET
from skssl.recipes.imagenet100 import IMAGENET100
from skssl.recipes.race import RACE
from skssl.recipes.stl10 import STL10
from skssl.recipes.tiny_imagenet import TINY_IMAGENET
from skssl.recipes.video import VIDEO

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "DENSE",
    "FINE_TUNING",
    "IMAGENET",
    "IMAGENET100",
    "RACE",
    "STL10",
    "TINY_IMAGENET",
    "VIDEO",
    "make",
    "make_probes",
]
