"""What the paper says: Bai et al., "Collaborative Anomaly Detection", arXiv 2209.09923."""

from collections.abc import Mapping

CITATION = "Bai et al., arXiv 2209.09923"

# Table 1: AUC x 100 on MovieLens 1M. A histogram embedding stands under the label that it is of.
TABLE_1: Mapping[str, Mapping[str, float]] = {
    "gaussian": {"age": 59.5, "occupation": 61.5},
    "maf": {"age": 60.9, "occupation": 58.3},
    "random": {"age": 78.2, "occupation": 64.2},
    "ktup": {"age": 80.3, "occupation": 68.0},
    "histogram-age": {"age": 82.6},
    "histogram-occupation": {"occupation": 73.4},
    "learned": {"age": 80.6, "occupation": 66.1},
}

FIELDS = {"gender", "age", "occupation", "zip_code"}  # section 5.1: the labels of users
MIN_EXPOSURES, KEEP_SHARE = 100, 0.5  # section 5.1: which items are tasks
SEED_TASKS = 100  # section 5.1: M0
HIDDEN = [32, 32, 16]  # Table 5: the ratio's network
DROPOUT = [0.5, 0.5, 0.3]  # Table 5
