"""The parts of a recipe, the estimator and the probes that it describes."""

from __future__ import annotations

from typing import Any

import torch

from skssl import methods
from skssl.augment import Augmentation
from skssl.probes import KNNProbe, LinearProbe
from skssl.transfer import DetectionTransfer, FineTuner, SegmentationTransfer

Recipe = dict[str, Any]
#: The arguments of the probes, by the name of the probe.
Protocol = dict[str, dict[str, Any]]


def make(recipe: Recipe, **changes: Any) -> Any:
    """Make the estimator of a recipe.

    Parameters
    ----------
    recipe : dict
        A recipe of this module.
    **changes
        Arguments in addition to, or instead of, the recipe's, such as ``epochs`` or ``random_state``.

    Returns
    -------
    estimator
        The estimator, not fitted.

    Examples
    --------
    >>> from skssl import recipes
    >>> recipes.make(recipes.IMAGENET["SimSiam"]).get_params()["backbone"]
    'resnet50'
    """
    transfer = {kind.__name__: kind for kind in (FineTuner, DetectionTransfer, SegmentationTransfer)}
    estimators = {**vars(methods), **transfer}
    return estimators[recipe["method"]](**{**recipe["params"], **changes})


def make_probes(recipe: Recipe, encoder: Any, **changes: Any) -> dict[str, Any]:
    """Make the probes by which the source of a recipe judges.

    Parameters
    ----------
    recipe : dict
        A recipe of this module with a "protocol".
    encoder : estimator
        The encoder. A fitted one is frozen.
    **changes
        Arguments in addition to, or instead of, those of both probes, such as ``device``.

    Returns
    -------
    dict of str to estimator
        A `LinearProbe` as "linear" and a `KNNProbe` as "knn". They are fitted to images.

    Examples
    --------
    >>> from skssl import recipes
    >>> recipe = recipes.CIFAR10["MoCo"]
    >>> recipes.make_probes(recipe, recipes.make(recipe))["knn"].get_params(deep=False)["layer"]
    'projector'
    """
    probes = {"linear": LinearProbe, "knn": KNNProbe}
    return {name: probe(encoder=encoder, **{**recipe["protocol"][name], **changes}) for name, probe in probes.items()}


def new_recipe(
    method: str,
    source: str,
    linear: float | None = None,
    knn: float | None = None,
    /,
    *,
    of: str = "printed",
    printed: str = "",
    code: str = "",
    inferred: str = "",
    judged: Protocol | None = None,
    scores: dict[str, float] | None = None,
    **params: Any,
) -> Recipe:
    """Return a recipe.

    Parameters
    ----------
    method : str
        Name of the estimator.
    source : str
        Where the settings and scores come from.
    linear, knn : float or None, default=None
        Reported accuracy in per cent.
    of : {"printed", "code", "inferred"}, default="printed"
        Origin of the arguments that the next three do not list.
    printed, code, inferred : str, default=""
        Names of the arguments of this origin, separated by spaces.
    judged : dict of str to dict, default=None
        Arguments of the probes by which the source judges.
    scores : dict of str to float, default=None
        Other reported scores.
    **params
        Arguments of the estimator.

    Returns
    -------
    dict
        The recipe.
    """
    origin = dict.fromkeys(params, of)
    for kind, names in {"printed": printed, "code": code, "inferred": inferred}.items():
        origin |= dict.fromkeys(names.split(), kind)
    return {
        "method": method,
        "params": params,
        "linear": linear,
        "knn": knn,
        "scores": scores or {},
        "source": source,
        "origin": origin,
        "protocol": {"linear": {}, "knn": {}, **(judged or {})},
    }


def changed(
    recipe: Recipe,
    linear: float | None = None,
    knn: float | None = None,
    /,
    *,
    of: str = "printed",
    source: str | None = None,
    scores: dict[str, float] | None = None,
    **params: Any,
) -> Recipe:
    """Return a recipe with additional arguments and other scores.

    Parameters
    ----------
    recipe : dict
        The recipe to start from.
    linear, knn : float or None, default=None
        Reported accuracy in per cent.
    of : {"printed", "code", "inferred"}, default="printed"
        Origin of the additional arguments.
    source : str, default=None
        Where they come from. None is the source of the recipe.
    scores : dict of str to float, default=None
        Other reported scores.
    **params
        Arguments in addition to, or instead of, the recipe's.

    Returns
    -------
    dict
        The new recipe.
    """
    return {
        **recipe,
        "linear": linear,
        "knn": knn,
        "scores": scores or {},
        "source": source or recipe["source"],
        "params": {**recipe["params"], **params},
        "origin": {**recipe["origin"], **dict.fromkeys(params, of)},
    }


def rotated(
    recipe: Recipe,
    weight: float,
    linear: float | None = None,
    knn: float | None = None,
    /,
    *,
    scores: dict[str, float] | None = None,
) -> Recipe:
    """Return a recipe with the rotation task, its weight and other scores."""
    return changed(recipe, linear, knn, scores=scores, aux="rotation", aux_weight=weight)


def w_mse_by_views(
    n_images: int,
    epochs: int,
    lr: float,
    scores: dict[int, tuple[float | None, float | None]],
    /,
    *,
    proj_dim: int = 64,
    whitening_iterations: int = 1,
    **view: Any,
) -> dict[str, Recipe]:
    """Return W-MSE's recipes of a data set by their titles, for two and for four views.

    Parameters
    ----------
    n_images : int
        Number of training images, which makes epochs of the 500 steps of the warm-up.
    epochs, lr, proj_dim
        Arguments of the estimator.
    scores : dict of int to (float or None, float or None)
        Linear accuracy and accuracy of five neighbours in per cent, by the number of views.
    whitening_iterations : int, default=1
        The argument for two views; it is 1 for four.
    **view
        Settings of the views in addition to those of small images.

    Returns
    -------
    dict of str to dict
        The recipes.
    """
    augment = Augmentation(**{"crop_scale": (0.2, 1.0), "gray": 0.1, "interpolation": "bicubic", **view})
    found: dict[str, Recipe] = {}
    for n_views, (linear, knn) in scores.items():
        batch_size = 1024 // n_views
        warmup = 500 / (n_images // batch_size)
        found[f"WMSE, {n_views} views"] = new_recipe(
            "WMSE",
            "W-MSE's code and table 1" + ("" if linear else "; score not known"),
            linear,
            knn,
            n_views=n_views,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=torch.optim.Adam,
            lr=lr,
            weight_decay=1e-6,
            warmup_epochs=warmup,
            # The rate falls to a fifth 50 and 25 epochs before the end.
            schedule=tuple((1 - left / (epochs - warmup), 0.2**i) for i, left in ((1, 50), (2, 25))),
            hidden_dim=1024,
            proj_dim=proj_dim,
            whitening_size=2 * proj_dim,
            whitening_iterations=whitening_iterations if n_views == 2 else 1,
            whitening_eps=0.0,
            augment=augment,
            of="code",
            judged={"knn": {"n_neighbors": 5}},
        )
    return found


# How the sources judge

BY_EFFSSL: Protocol = {"linear": {"protocol": "effssl"}, "knn": {"protocol": "effssl"}}
# Section 4.3: for SimSiam a rate of 30, crops and flips
BY_EFFSSL_SIMSIAM: Protocol = {
    **BY_EFFSSL,
    "linear": {"protocol": "gsg", "epochs": 100, "batch_size": 512},
}
BY_GSG: Protocol = {"linear": {"protocol": "gsg"}, "knn": {"protocol": "gsg"}}
BY_GSG_IMAGENET: Protocol = {"linear": {"protocol": "simsiam"}, "knn": {"n_neighbors": 200}}
# The demonstration has no linear classifier.
BY_MOCO: Protocol = {
    "linear": {"protocol": "moco"},
    "knn": {"protocol": "moco", "layer": "projector"},
}
BY_MOCO_IMAGENET: Protocol = {"linear": {"protocol": "moco"}}
BY_SWAV: Protocol = {"linear": {"protocol": "swav"}}
BY_SOLO: Protocol = {"linear": {"protocol": "solo-learn"}}
BY_LIGHTLY: Protocol = {"knn": {"n_neighbors": 200, "temperature": 0.1}}
BY_SUPCON: Protocol = {
    "linear": {
        "solver": "sgd",
        "epochs": 100,
        "batch_size": 512,
        "lr": 5.0,
        "weight_decay": 0.0,
        "schedule": (0.6, 0.75, 0.9),
        "augment": Augmentation(crop_scale=(0.2, 1.0), jitter=0.0, gray=0.0),
    }
}
BY_DECOUPLING: Protocol = {"linear": {"protocol": "decoupling", "layer": "conv5"}}
BY_SWAV_30: Protocol = {"linear": {"protocol": "swav", "epochs": 30}, "knn": {}}

# Settings of several data sets

SHORT: dict[str, Any] = {"epochs": 200, "batch_size": 512}
LONG: dict[str, Any] = {"epochs": 1000, "batch_size": 256}
TENTHS: dict[str, Any] = {"schedule": ((0.6, 0.1), (0.8, 0.01))}  # epochs 120 and 160 of 200
UNSTATED: dict[str, Any] = {"inferred": "batch_size warmup_epochs", "judged": BY_EFFSSL}  # by EffSSL
