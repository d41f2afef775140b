"""Scores of a grid, whatever the blocks; the scores table and its inverse."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.models.ratio import RatioNet
from pipeline.models.weights import draw_layers
from pipeline.schemas import SCORES
from pipeline.score_matrix import score_matrix, score_table
from pipeline.scoring import score_all, score_grid

GEN = torch.Generator().manual_seed(0)
X, E = torch.randn(11, 4, generator=GEN), torch.randn(7, 3, generator=GEN)


@pytest.fixture
def net() -> RatioNet:
    """A network left in training mode."""
    made = RatioNet(x_dim=4, task_dim=3)
    draw_layers(made, torch.Generator().manual_seed(0))
    return made.train()


def test_every_task_has_a_row_of_scores_and_every_user_a_column(net: RatioNet) -> None:
    found = score_all(net, X, E)
    assert found.shape == (7, 11)
    assert found.dtype == np.float32
    net.eval()
    with torch.no_grad():
        for task in range(7):
            expected = [float(net(X[user], E[task])) for user in range(11)]
            np.testing.assert_allclose(found[task], expected, atol=1e-6)


@pytest.mark.parametrize(("block", "tasks"), [(1, 1), (11, 1), (35, 3), (1 << 18, 7)])
def test_blocks_hold_whole_tasks_in_their_order(net: RatioNet, block: int, tasks: int) -> None:
    parts = list(score_grid(net, X, E, block))
    assert [len(part) for part in parts] == [tasks] * (7 // tasks) + [7 % tasks] * (7 % tasks > 0)
    np.testing.assert_allclose(torch.cat(parts), score_all(net, X, E), atol=1e-6)


def test_the_scores_table_is_sorted_and_its_matrix_is_the_scores() -> None:
    scores = np.arange(6, dtype=np.float32).reshape(2, 3)
    tasks = pa.table({"task_id": pa.array([4, 9], pa.int32())})
    table = score_table(scores, tasks, np.array([10, 20, 30]))
    SCORES.check(table, "here")
    assert table.slice(4, 1).to_pylist() == [{"task_id": 9, "user_id": 20, "score": 4.0}]
    np.testing.assert_array_equal(score_matrix(table, tasks, np.array([10, 20, 30])), scores)
