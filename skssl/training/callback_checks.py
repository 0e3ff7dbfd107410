"""Refuse the skorch callbacks that cannot work in a self-supervised training, with what to use instead."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from skorch.callbacks import InputShapeSetter, LRScheduler, NeptuneLogger, PassthroughScoring, WandbLogger
from skorch.callbacks.scoring import ScoringBase


def check_callback(callback: Any) -> None:
    """Refuse a callback that would have no effect or fail.

    Parameters
    ----------
    callback : skorch.callbacks.Callback
        The callback, initialised.

    Raises
    ------
    ValueError
        If the callback sets the learning rate or the shape of the input, or reads validation data or predictions.
    """
    name, monitor = type(callback).__name__, getattr(callback, "monitor", None)
    if isinstance(callback, LRScheduler):
        policy = callback.policy if isinstance(callback.policy, str) else callback.policy.__name__
        arguments = "".join(f", {key}={value!r}" for key, value in callback.kwargs.items())
        raise ValueError(
            f"{name} cannot set the learning rate, which the parameter 'schedule' sets. Pass "
            f"schedule=functools.partial({policy}{arguments}) instead."
        )
    if isinstance(callback, InputShapeSetter):
        raise ValueError(f"{name} is not needed: the network is built for the shape of the images. Remove it.")
    if isinstance(monitor, str) and monitor.startswith("valid"):
        column = "train_loss_best" if monitor.endswith("_best") else "train_loss"
        raise ValueError(
            f"{name} monitors {monitor!r}, but there is no validation data. Pass monitor={column!r}, or another column "
            "of the history, such as 'knn' of a KNNMonitor before it."
        )
    if isinstance(callback, (ScoringBase, PassthroughScoring)) and not callback.on_train:
        raise ValueError(f"{name} scores validation data, but there is none. Pass on_train=True.")
    if isinstance(callback, ScoringBase) and (
        not callable(scoring := callback.scoring_) or hasattr(scoring, "_score_func")
    ):
        raise ValueError(
            f"{name} with scoring={callback.scoring!r} needs predictions, but the training makes none. Pass a function "
            "of (net, X, y) that returns a score."
        )
    if isinstance(callback, WandbLogger) and callback.save_model:
        raise ValueError(
            f"{name} saves the model with the best validation loss, but there is no validation data. Pass "
            "save_model=False. Checkpoint(monitor='train_loss_best') saves the model with the best training loss."
        )


def check_columns(callback: Any, columns: Collection[str]) -> None:
    """Refuse a callback that cannot log the columns of the history.

    Parameters
    ----------
    callback : skorch.callbacks.Callback
        The callback, initialised.
    columns : collection of str
        The columns of an epoch.

    Raises
    ------
    ValueError
        If one column is a folder of another for Neptune.
    """
    if not isinstance(callback, NeptuneLogger):
        return
    logged = [name for name in columns if name not in callback.keys_ignored_ and not name.endswith("_best")]
    for name in logged:
        folder = name.partition("_")[0]  # NeptuneLogger logs "rotation_accuracy" as "rotation/epoch/accuracy"
        if folder != name and folder in logged:
            raise ValueError(
                f"{type(callback).__name__} cannot log both {folder!r} and {name!r}, since Neptune takes the "
                f"first for a folder of the second. Pass keys_ignored=[{folder!r}]."
            )
