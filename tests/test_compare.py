"""One table of many runs: its figures do not depend on the order in which they ran."""

from collections.abc import Sequence

import pytest

from experiments import compare as module
from experiments.compare import compare

KEYS = ["age.auc", "loss.valid", "deepfm.pair_auc"]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs in their order; each one's figures follow from its settings alone."""
    names: list[str] = []

    def run(name: str, settings: Sequence[str]) -> dict[str, object]:
        names.append(name)
        told = dict(setting.split("=") for setting in settings)
        seed = int(told["seed"])
        auc = {"random": 0.6, "mean": 0.7}[told["init"]] + 0.1 * seed
        found = {"age": {"auc": auc}, "loss": {"valid": 1.25 + seed}}
        return found | ({"deepfm": {"pair_auc": 0.9}} if told["init"] == "mean" else {})

    monkeypatch.setattr(module, "run_experiment", run)
    return names


def rows(inits: list[str], seeds: list[str]) -> dict[str, str]:
    table = compare([[f"init={init}" for init in inits]], ["ratio.base=users"], seeds, KEYS)
    return {line.split(" | ")[0]: line for line in table.splitlines()[2:]}


def test_runs_in_any_order_give_the_same_figures(ran: list[str]) -> None:
    found = rows(["random", "mean"], ["0", "1", "2"])
    assert found == {
        "| init=random": "| init=random | 70.00 ± 10.00 | 2.2500 ± 1.0000 | - |",
        "| init=mean": "| init=mean | 80.00 ± 10.00 | 2.2500 ± 1.0000 | 90.00 ± 0.00 |",
    }
    forward = list(ran)
    assert rows(["mean", "random"], ["2", "0", "1"]) == found
    assert sorted(ran[len(forward) :]) == sorted(forward)
    assert forward[0] == "ratio-base-users-init-random-seed-0"


def test_one_seed_has_no_spread(ran: list[str]) -> None:
    assert rows(["mean"], ["0"])["| init=mean"] == "| init=mean | 70.00 | 1.2500 | 90.00 |"
