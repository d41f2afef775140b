"""The comparison of ways to choose seed tasks: paired figures by hand, its table and its figure."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments import runs, seeds
from experiments.seeds import Compared, app, compared
from pipeline.text_files import read_csv


def outcome(loss: float, *aucs: float) -> seeds.Outcome:
    return {"loss": np.array([loss]), "age": np.array(aucs)}


RUNS = {
    ("random", 10): [outcome(1.3, 0.5, 0.6, np.nan), outcome(1.2, 0.7, 0.8, np.nan)],
    ("farthest", 10): [outcome(1.2, 0.6, 0.6, np.nan), outcome(1.1, 0.9, 0.8, np.nan)],
}


def row(method: str, figure: str) -> Compared:
    return next(r for r in compared(RUNS) if (r.method, r.figure) == (method, figure))


def test_a_gain_is_paired_by_seed_and_task() -> None:
    """The gains are .1 and 0 with the first seed, .2 and 0 with the second."""
    found = row("farthest", "age")
    assert found.mean == pytest.approx((0.6 + 0.85) / 2)
    assert found.spread == pytest.approx(np.std([0.6, 0.85], ddof=1))
    assert found.gain == pytest.approx(0.075)
    over_seeds = np.std([0.05, 0.1], ddof=1) / 2**0.5
    over_tasks = np.std([0.15, 0.0], ddof=1) / 2**0.5
    assert found.noise == pytest.approx((over_seeds**2 + over_tasks**2) ** 0.5)
    assert not found.beyond_noise


def test_chance_gains_nothing_over_itself() -> None:
    found = row("random", "age")
    assert (found.gain, found.noise, found.beyond_noise) == (0, 0, False)


def test_the_loss_is_paired_by_seed() -> None:
    found = row("farthest", "loss")
    assert found.gain == pytest.approx(-0.1)
    assert found.noise == pytest.approx(0, abs=1e-12)


def faked(name: str, settings: list[str]) -> dict[str, object]:
    assert name == name.strip("-").replace("+", "")
    return {"loss": {"valid": 1.25 if "pretrain.seed_method=random" in settings else 1.2}}


def test_the_command_runs_every_combination_and_writes_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice from the same runs come the same bytes."""
    asked: list[list[str]] = []

    def run(name: str, settings: list[str]) -> dict[str, object]:
        asked.append(settings)
        return faked(name, settings)

    def read(name: str, path: str) -> str:
        better = 0.02 if "facility" in name else 0.0
        luck = np.random.default_rng(len(name)).normal(0, 0.001, 30)
        rows = [f"{t},{t + 1},age,{0.6 + better + luck[t]:.6f},5,5" for t in range(30)]
        return "\n".join(["task_id,item_id,label,auc,n_nominal,n_anomalous", *rows]) + "\n"

    monkeypatch.setattr(seeds, "run_experiment", run)
    monkeypatch.setattr(runs, "_uncommitted", lambda: "")
    monkeypatch.setattr(seeds, "read_from", read)
    for folder in ("one", "two"):
        given = ["-S", "ratio.base=users", "--counts=10,64", "--seeds=0,1", "--raw-dir=/a b"]
        result = CliRunner().invoke(app, [*given, f"--out={tmp_path / folder}"])
        assert result.exit_code == 0, result.output
    assert len(asked) == 2 * 4 * 2 * 2
    assert asked[3] == [
        *("ratio.base=users", 'data.raw_dir="/a b"', "pretrain.seed_method=random"),
        *("pretrain.seed_tasks=64", "seed=1"),
    ]
    lines = result.stdout.splitlines()
    assert lines[0] == "| M0 | seed tasks | loss (gain) | age (gain) |"
    assert lines[2].startswith("| 10 | random | 1.2500 ± 0.0000 | 6")
    assert [line.split("**")[1][:4] for line in lines if "facility" in line] == ["+2.0", "+2.0"]
    for name in ("seeds.csv", "seeds.md", "seeds.svg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    rows = read_csv(tmp_path / "one" / "seeds.csv")
    assert len(rows) == 4 * 2 * 2
    assert [*rows[0]] == ["method", "seed_tasks", "figure", "mean", "spread", "gain", "noise"]


def test_the_committed_figure_and_page_follow_from_the_committed_table() -> None:
    folder = Path(__file__).parents[1] / "metrics/seeds"
    kinds = (str, int, str, *[float] * 4)
    rows = [
        Compared(*(kind(value) for kind, value in zip(kinds, row.values(), strict=True)))
        for row in read_csv(folder / "seeds.csv")
    ]
    assert seeds.figure_of(rows) == (folder / "seeds.svg").read_text()
    assert seeds.as_table(rows, seeds=5) == (folder / "seeds.md").read_text()


@pytest.mark.parametrize("methods", ["farthest", "random,nearest"])
def test_chance_must_be_among_the_methods_and_all_must_be_known(methods: str) -> None:
    result = CliRunner().invoke(app, [f"--methods={methods}"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"seeds: --methods {methods}: expected some of random,kmeans++")
    assert result.stderr.count("\n") == 1
