"""Training DeepFM, against a plain implementation of the same network."""

import torch

from benchmarks.command import command
from benchmarks.data import TASKS, USERS, sample
from benchmarks.page import Section
from benchmarks.textbook import PlainDeepFM, plain_deepfm_epoch
from benchmarks.timing import race
from pipeline.params import Features
from pipeline.training.deepfm import Interactions, train_deepfm
from pipeline.training.session import Session

BATCH, ROUNDS, WIDTH, HIDDEN = 16_384, 7, 100, (128, 64)
PLAIN_STEPS, EXPOSURES = 2, 200_000
TEXT = f"""
{USERS:,} users, {TASKS:,} items with genres, {EXPOSURES:,} exposures, each against an unseen item;
embeddings of {WIDTH}, an MLP of {HIDDEN[0]} and {HIDDEN[1]} with dropout .2, batch {BATCH:,},
Adam with weight decay. Plain: embedding layers, the fields of every pair stacked and concatenated,
`nn.Dropout`, seen items drawn again. Ours: a whole epoch, with the validation that ends it.
"""


def main() -> Section:
    """Exposures a second both ways."""
    data = sample(exposures=EXPOSURES)
    user, item = torch.from_numpy(data.user), torch.from_numpy(data.task)
    plain = PlainDeepFM(USERS, data.genres, WIDTH, HIDDEN)
    codes = torch.arange(USERS)[:, None]
    interactions = Interactions(user, item, codes, data.genres)
    few = PLAIN_STEPS * BATCH
    jobs = {
        "plain": (lambda: plain_deepfm_epoch(plain, user, item, few, batch=BATCH, lr=5e-3), few),
        "this pipeline": (
            lambda: train_deepfm(interactions, _params(), seed=0, session=Session()),
            round(0.9 * EXPOSURES),  # the rest is kept to stop by
        ),
    }
    result = race(jobs, ROUNDS)
    rows = [
        [name, result.rate(name, 1e-6).show(), result.ratio("plain", name).show()] for name in jobs
    ]
    header = (f"n = {ROUNDS}", "million exposures/s", "x plain")
    return Section("DeepFM", "python -m benchmarks.deepfm", TEXT, header, rows)


def _params() -> Features:
    return Features.model_construct(
        f_dim=WIDTH,
        hidden=list(HIDDEN),
        dropout=0.2,
        init_std=0.01,
        lr=5e-3,
        weight_decay=1e-6,
        batch_size=BATCH,
        max_epochs=1,
        patience=1,
        stop_share=0.1,
    )


if __name__ == "__main__":
    command(main)
