"""All-pairs scoring, against a loop over tasks that concatenates every pair."""

import torch

from benchmarks.command import command
from benchmarks.data import E_DIM, USERS, X_DIM, sample
from benchmarks.page import Section
from benchmarks.textbook import HIDDEN
from benchmarks.timing import race
from pipeline.models.ratio import RatioNet
from pipeline.scoring import score_grid

ROUNDS, PLAIN_TASKS, OUR_TASKS = 15, 40, 320
TEXT = f"""
Log ratios of {USERS:,} users under tasks of the network of Table 5, each user under each task.
Plain: task by task, the users' vectors beside the task's embedding, through the network.
"""


@torch.no_grad()
def main() -> Section:
    """Scores a second both ways."""
    data = sample(exposures=1_000)  # of which only the vectors are needed
    net = RatioNet(x_dim=X_DIM, task_dim=E_DIM, hidden=HIDDEN).eval()

    def plain() -> None:
        for e in data.e[:PLAIN_TASKS]:
            net(data.x, e.expand(USERS, E_DIM))

    def ours() -> None:
        for _ in score_grid(net, data.x, data.e[:OUR_TASKS]):
            pass

    jobs = {"plain": (plain, PLAIN_TASKS * USERS), "this pipeline": (ours, OUR_TASKS * USERS)}
    result = race(jobs, ROUNDS)
    rows = [
        [name, result.rate(name, 1e-6).show(), result.ratio("plain", name).show()] for name in jobs
    ]
    header = (f"n = {ROUNDS}", "million scores/s", "x plain")
    return Section("Scoring all pairs", "python -m benchmarks.scoring", TEXT, header, rows)


if __name__ == "__main__":
    command(main)
