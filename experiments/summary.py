"""What the last `dvc repro` came to: the AUCs, and where the report is."""

import json
from pathlib import Path

from experiments.runs import METRICS, figure, labels


def main() -> None:
    """Print the summary, for `make repro`."""
    metrics = json.loads(Path(METRICS).read_text())
    told = {name: f"by {name}" for name in labels()}
    for first in list(told)[:1]:
        told[first] = f"nominal against anomalous users by {first}"
    told["exposure"] = "users with a held-out exposure against users without any"
    for key, what in told.items():
        if (auc := figure(metrics, f"{key}.auc")) is not None:
            low, high = (
                100 * (figure(metrics, f"{key}.ci95_{end}") or 0) for end in ("low", "high")
            )
            print(f"AUC x 100, {what}: {100 * auc:.1f} [{low:.1f}, {high:.1f}]")
    print(f"Report: {Path('data/report/report.html').resolve()}")


if __name__ == "__main__":
    main()
