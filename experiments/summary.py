"""What the last `dvc repro` came to: the AUCs, and where the report is."""

import json
from pathlib import Path

from experiments.runs import METRICS, figure, labels


def main() -> None:
    """Print the summary, for `make repro`."""
    metrics = json.loads(Path(METRICS).read_text())
    whom = ["nominal against anomalous users ", ""]  # said once
    told = {name: f"{whom[n > 0]}by {name}" for n, name in enumerate(labels())}
    told["exposure"] = "users with a held-out exposure against users without any"
    for key, what in told.items():
        if (auc := figure(metrics, f"{key}.auc")) is not None:
            low, high = (
                100 * (figure(metrics, f"{key}.ci95_{end}") or 0) for end in ("low", "high")
            )
            activity = 100 * (figure(metrics, f"trivial.activity.{key}") or 0)
            print(
                f"AUC x 100, {what}: {100 * auc:.1f} [{low:.1f}, {high:.1f}]; "
                f"activity alone {activity:.1f}"
            )
    print(f"Report: {Path('data/report/report.html').resolve()}")


if __name__ == "__main__":
    main()
