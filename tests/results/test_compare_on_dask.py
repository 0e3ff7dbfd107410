"""A grid search on a Dask cluster, by joblib's Dask backend."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skssl import SimCLR
from skssl.datasets import make_shapes

distributed = pytest.importorskip("distributed", reason="dask[distributed] is not installed")


@pytest.fixture
def one_thread():
    """Set torch to one thread, as in the workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_grid_search_on_dask_matches_one_process(one_thread, monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    X, y = make_shapes(120, image_size=16, random_state=0)
    encoder = SimCLR(aux="rotation", backbone="convnet", batch_size=16, epochs=1, random_state=0)
    pipeline = Pipeline([("ssl", encoder), ("clf", LogisticRegression(max_iter=1000))])
    search = GridSearchCV(pipeline, {"ssl__temperature": [0.2, 0.5]}, cv=2)
    alone = search.fit(X, y).cv_results_
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=tmp_path
    )
    with cluster, distributed.Client(cluster) as client, joblib.parallel_config("dask"):
        together = search.fit(X, y).cv_results_
        workers = client.run(lambda: torch.get_num_threads())
    assert list(workers.values()) == [1, 1]
    names = [name for name in alone if name.endswith("_score")]
    assert len(names) >= 4
    for name in names:
        assert np.array_equal(alone[name], together[name]), name
