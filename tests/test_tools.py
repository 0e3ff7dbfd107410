"""Other tools beside skssl: which, in which version, and what was checked with the real library.

A tool that is not installed is skipped with a reason. `pip install` the names of the table to run all checks.
"""

import contextlib
import os
import random
import re
import signal
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from conftest import quick
from interruptions import OFTEN, assert_same
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skorch.callbacks import EarlyStopping, EpochTimer, MlflowLogger, NeptuneLogger, TensorBoard, WandbLogger
from skorch.utils import noop

import skssl
from skssl.augment.transforms import resolve_transforms
from skssl.callbacks import KNNMonitor
from skssl.datasets import make_shapes
from skssl.images import as_images
from skssl.training.checkpoints import STATE
from skssl.training.digests import digest
from skssl.training.loader import ImageLoader

ROOT = Path(__file__).parents[1]

# The name on PyPI: the newest version that was tried, the file of the tests, and what they check.
TOOLS = {
    "skorch": (
        "1.4.0",
        "tests/training/test_skorch_callbacks.py",
        "Checkpoint, TrainEndCheckpoint, LoadInitState, EarlyStopping, EpochScoring, BatchScoring, PassthroughScoring, "
        "PrintLog, ProgressBar, EpochTimer, GradientNormClipping, Freezer, Unfreezer, ParamMapper, Initializer work; "
        "LRScheduler, InputShapeSetter and callbacks that need validation data are refused with what to pass",
    ),
    "torch": (
        "2.14.1",
        "tests/training/test_schedules.py",
        "schedule= gives the rates of a loop with StepLR, CosineAnnealingLR, LambdaLR, SequentialLR, OneCycleLR and "
        "ReduceLROnPlateau",
    ),
    "tensorboard": (
        "2.21.0",
        "tests/test_tools.py",
        "every number of the history is logged once for each epoch, and with the same step again after a kill",
    ),
    "mlflow-skinny": ("3.17.2", "tests/test_tools.py", "the same; artifacts; losses of batches"),
    "wandb": ("0.31.0", "tests/test_tools.py", "offline: every number of the history is logged for each epoch"),
    "neptune": ("1.14.0.post2", "tests/test_tools.py", "debug mode: columns that Neptune refuses are named"),
    "torchvision": (
        "0.29.1",
        "tests/augment/test_transforms.py",
        "augment= of v1 and v2 transforms: image by image, seeds, processes, resume, save, clone, search",
    ),
    "albumentations": (
        "2.0.8",
        "tests/test_tools.py",
        "augment=: seeds of images, processes, digest, normalisation",
    ),
    "kornia": ("0.9.0", "tests/test_tools.py", "augment=: batches, seeds, normalisation; same_on_batch is refused"),
    "distributed": (
        "2026.8.0",
        "tests/test_tools.py",
        "a grid search by joblib's Dask backend gives the scores of one process",
    ),
    "ray": ("2.60.0", "tests/test_tools.py", "the same by joblib's Ray backend, which needs n_jobs"),
    "lightly": ("1.6.0", "tests/test_tools.py", "augment=SimCLRTransform(): its list of views, seeds, normalisation"),
}


def need(name, module):
    """Return a module of a tool, or skip the test."""
    version = TOOLS[name][0]
    return pytest.importorskip(module, reason=f"needs {name}: pip install {name} (version {version} was tried)")


def test_every_tool_of_the_table_has_its_tests():
    for name, (version, file, checked) in TOOLS.items():
        assert re.fullmatch(r"\d+(\.\w+)+", version)
        assert len(checked) > 20
        assert name.removesuffix("-skinny") in (ROOT / file).read_text(), f"{file} does not test {name}"


def numbers(history):
    """Return what loggers take of a history, by column."""
    columns = history.select_dtypes("number").drop(columns="epoch")
    return {name: [(epoch, value) for epoch, value in enumerate(columns[name], 1)] for name in columns}


def fit(X, callback, **params):
    return quick(skssl.SimCLR, **{"epochs": 2, "callbacks": [callback], **params}).fit(X)


def in_tensorboard(folder):
    """Return the scalars in a folder of TensorBoard, as a viewer reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_tensorboard_logs_every_number_once_for_each_epoch(X, tmp_path):
    writer = need("tensorboard", "torch.utils.tensorboard").SummaryWriter(tmp_path)
    history = fit(X, TensorBoard(writer), aux="rotation").history_
    found = in_tensorboard(tmp_path)
    assert found.pop("Loss/train_loss") == found["loss"]
    assert found.keys() == numbers(history).keys()
    for name, values in numbers(history).items():
        assert found[name] == [(epoch, pytest.approx(value, rel=1e-6)) for epoch, value in values]  # float32


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    found = need("mlflow-skinny", "mlflow")
    found.set_tracking_uri(f"file:{tmp_path}")
    found.set_experiment("skssl")
    return found


def in_mlflow(mlflow, run_id):
    """Return the metrics of a run of MLflow."""
    client = mlflow.MlflowClient()
    names = client.get_run(run_id).data.metrics
    return {name: [(each.step, each.value) for each in client.get_metric_history(run_id, name)] for name in names}


def test_mlflow_logs_every_number_once_for_each_epoch(X, mlflow):
    with mlflow.start_run() as run:
        history = fit(X, MlflowLogger(), aux="rotation").history_
    found = in_mlflow(mlflow, run.info.run_id)
    assert found.pop("train_loss") == found["loss"]
    assert found == numbers(history)
    client = mlflow.MlflowClient()
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert artifacts == {"params.pth", "optimizer.pth", "criterion.pth", "history.json"}
    assert client.get_run(run.info.run_id).info.status == "FINISHED"


def test_mlflow_logs_the_losses_of_batches(X, mlflow):
    with mlflow.start_run() as run:
        history = fit(X, MlflowLogger(log_on_batch_end=True)).history_
    found = in_mlflow(mlflow, run.info.run_id)
    assert [step for step, _ in found["train_loss_batch"]] == [1, 2, 3, 4]
    of_batches = torch.tensor([value for _, value in found["train_loss_batch"]]).view(2, 2).mean(1)
    assert of_batches.tolist() == pytest.approx(history["loss"].tolist(), rel=1e-6)


def test_wandb_logs_every_number_for_each_epoch_offline(X, tmp_path, monkeypatch):
    wandb = need("wandb", "wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(mode="offline", project="skssl", dir=tmp_path)
    history = fit(X, WandbLogger(run, save_model=False)).history_
    summary = {name: value for name, value in dict(run.summary).items() if not name.startswith("_")}
    assert summary.pop("train_loss") == summary["loss"]
    assert summary == {name: values[-1][1] for name, values in numbers(history).items()}
    assert run.step == 2
    run.finish()


def watched(*loggers, **params):
    """Return an estimator that stops early on kNN accuracy: it is best in epoch 5, and stops after epoch 9."""
    X, y = make_shapes(64, image_size=16, random_state=1)
    monitor = KNNMonitor(*make_shapes(40, image_size=16, random_state=0), X, y, n_neighbors=3)
    stopping = EarlyStopping("knn", lower_is_better=False, patience=4, load_best=True, sink=noop)
    callbacks = [monitor, *loggers, stopping]  # what stops a training stands last, so that the last epoch is logged
    return quick(skssl.SimCLR, **{"epochs": 12, "batch_size": 10, "lr": 1.0, "callbacks": callbacks, **params})


def train_with_loggers(folder, run_id, X):
    """Train, watched by TensorBoard, MLflow and early stopping. The same call continues the run of MLflow."""
    import mlflow
    from torch.utils.tensorboard import SummaryWriter

    client = mlflow.MlflowClient(f"file:{folder}")
    loggers = TensorBoard(SummaryWriter(folder / "tensorboard")), MlflowLogger(client.get_run(run_id), client)
    watched(*loggers, checkpoint=folder / "state", checkpoint_every=OFTEN).fit(X)


@pytest.mark.slow
def test_training_with_loggers_and_early_stopping_survives_sigkill(processes, X, mlflow, tmp_path):
    need("tensorboard", "tensorboard")
    plain = watched().fit(X)
    assert len(plain.history_) == 9
    with mlflow.start_run() as run:
        run_id = run.info.run_id
    state, draw, kills, code = tmp_path / "state" / STATE, random.Random(0), 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        process = processes.Process(target=train_with_loggers, args=(tmp_path, run_id, X))
        before = state.stat().st_mtime_ns if state.exists() else None
        process.start()
        while kills < 2 and process.is_alive():  # it is killed after it has saved its state at least once
            if state.exists() and state.stat().st_mtime_ns != before:
                process.join(draw.uniform(0, 0.2))
                kills += process.is_alive()
                process.kill()
                break
            time.sleep(0.01)
        process.join(300)
        code = process.exitcode
    assert code == 0
    assert kills == 2
    resumed = watched(callbacks=None, checkpoint=tmp_path / "state").fit(X)  # has nothing left to train
    assert_same(resumed, plain, X)
    logs = in_tensorboard(tmp_path / "tensorboard"), in_mlflow(mlflow, run_id)
    for found in logs:  # an epoch that was trained again is logged again, with the same step and number
        for name, values in numbers(plain.history_.drop(columns="images_per_second")).items():
            once = dict(found[name])
            assert all(once[step] == value for step, value in found[name])
            assert once == {epoch: pytest.approx(value, rel=1e-6, nan_ok=True) for epoch, value in values}


@pytest.mark.filterwarnings("ignore:.*NVML")  # Neptune's own, where there is no GPU
def test_columns_that_neptune_refuses_are_named(X, tmp_path, monkeypatch):
    neptune = need("neptune", "neptune")
    monkeypatch.chdir(tmp_path)
    run = neptune.init_run(mode="debug", project="skssl/skssl")
    assert len(fit(X, NeptuneLogger(run, close_after_train=False)).history_) == 2
    with pytest.raises(
        ValueError, match=r"cannot log both 'rotation' and 'rotation_accuracy'.* keys_ignored=\['rotation'\]"
    ):
        fit(X, NeptuneLogger(run, close_after_train=False), aux="rotation")
    fit(X, NeptuneLogger(run, close_after_train=False, keys_ignored=["rotation"]), aux="rotation")
    run.stop()


def views_repeat(X, augment):
    """Train twice, and again in two processes; return the views' normalisation and size."""
    models = [fit(X, EpochTimer(), augment=augment, epochs=1, n_jobs=n_jobs) for n_jobs in (None, None, 2)]
    for other in models[1:]:
        assert (other.transform(X) == models[0].transform(X)).all()
    assert clone(models[0]).fit(X).history_["loss"].tolist() == models[0].history_["loss"].tolist()
    views = models[0].net_.augmentations
    assert all((view.mean, view.std) == (views[0].mean, views[0].std) for view in views)
    return views[0].mean, views[0].std, views[0].size


HALF = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def test_albumentations_are_seeded_for_each_image(X, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    A = need("albumentations", "albumentations")
    crop = A.Compose([A.RandomResizedCrop((12, 12)), A.HorizontalFlip(), A.ColorJitter(), A.Normalize(*HALF)])
    before = digest(crop, "")
    assert views_repeat(X, crop) == (*HALF, (12, 12))
    assert digest(crop, "") == before != digest(A.Compose([A.HorizontalFlip()]), "")
    (batch,) = one_batch(X, A.RandomCrop(4, 4))
    assert len(torch.cat(batch.views).unique(dim=0)) > 20  # of 32 views of one image, 169 are possible
    fit(X, EpochTimer(), augment=crop, checkpoint=tmp_path, epochs=1)
    fit(X, EpochTimer(), augment=crop, checkpoint=tmp_path, epochs=1)


def one_batch(X, augment):
    """Return a batch of 16 copies of an image."""
    images = as_images(X[:1].repeat(16, 0))
    (view,) = resolve_transforms(augment, images, "SimCLR", 2)
    loader = ImageLoader(images, 16, [view, view], torch.device("cpu"))
    return loader.epoch(torch.Generator().manual_seed(0), torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Kornia's own, when it is imported
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_kornia_augments_batches(X):
    K = need("kornia", "kornia.augmentation")
    crop = K.AugmentationSequential(
        K.RandomResizedCrop((12, 12)), K.RandomHorizontalFlip(), K.ColorJiggle(0.4, 0.4, 0.4, 0.1), K.Normalize(*HALF)
    )
    mean, std, size = views_repeat(X, crop)
    assert (mean, std, size) == (*HALF, (12, 12))
    (batch,) = one_batch(X, K.RandomResizedCrop((8, 8)))
    assert len(torch.cat(batch.views).unique(dim=0)) > 24
    with pytest.raises(ValueError, match="draws its random numbers once for a batch"):
        fit(X, EpochTimer(), augment=K.RandomResizedCrop((8, 8), same_on_batch=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lightly_returns_all_views_at_once(X):
    transforms = need("lightly", "lightly.transforms")
    mean, _, size = views_repeat(X, transforms.SimCLRTransform(input_size=12, gaussian_blur=0.0))
    assert (size, mean) == ((12, 12), (0.485, 0.456, 0.406))
    with pytest.raises(ValueError, match=r"returns 8 views .*SimCLR compares 2"):
        fit(X, EpochTimer(), augment=transforms.DINOTransform(global_crop_size=16, local_crop_size=8))


@contextlib.contextmanager
def on_dask(folder):
    """Run joblib's tasks on a Dask cluster of two processes."""
    distributed = need("distributed", "distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=folder
    )
    with cluster, distributed.Client(cluster), joblib.parallel_config("dask"):
        yield


@contextlib.contextmanager
def on_ray(folder):
    """Run joblib's tasks on a Ray cluster of two processes."""
    ray = need("ray", "ray")
    need("ray", "ray.util.joblib").register_ray()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with joblib.parallel_config("ray", n_jobs=-1):
            yield
    finally:
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [on_dask, on_ray])
def test_grid_search_on_a_cluster_matches_one_process(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # otherwise Ray writes a token into the home folder
    X, y = make_shapes(48, image_size=16, random_state=0)
    pipeline = make_pipeline(quick(skssl.SimCLR), LogisticRegression(max_iter=1000))
    search = GridSearchCV(pipeline, {"simclr__temperature": [0.2, 0.5]}, cv=2)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the workers
    try:
        alone = search.fit(X, y).cv_results_
    finally:
        torch.set_num_threads(before)
    with cluster(tmp_path):
        together = search.fit(X, y).cv_results_
        worker, threads = joblib.Parallel()([joblib.delayed(os.getpid)(), joblib.delayed(torch.get_num_threads)()])
    assert worker != os.getpid()
    assert threads == 1
    names = [name for name in alone if name.endswith("_score")]
    assert len(names) == 5
    for name in names:
        assert np.array_equal(alone[name], together[name]), name
