"""The worked example of docs/detector.md, in a small form."""

import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from examples.grouped_metrics import COLUMNS, World, broken
from examples.groups import OURS, QUICKEST, Case, app
from examples.ways import Collaborative


def test_a_broken_day_has_the_same_total_and_two_broken_groups() -> None:
    gen = np.random.default_rng(0)
    volumes = World.of(30, gen).volumes(np.arange(20), gen)
    changed, hit = broken(volumes, gen)
    assert (changed.sum(1) == volumes.sum(1)).all()
    assert (hit.sum(1) == 2).all()
    ratio = np.sort((changed / volumes)[hit].reshape(20, 2))
    assert (ratio[:, 0] == 0).all()
    np.testing.assert_allclose(ratio[:, 1], 0.2, atol=0.01)
    assert (changed >= volumes)[~hit].all()


def test_a_table_has_a_row_a_day_and_group() -> None:
    gen = np.random.default_rng(0)
    world, days = World.of(30, gen), np.arange(14)
    table = world.table(world.volumes(days, gen), days, gen)
    assert table.columns.tolist() == [*COLUMNS, "group"]
    assert (table["group"].value_counts() == 14).all()
    assert table["weekend"].sum() == 30 * 4


def test_both_broken_groups_are_found_and_few_others() -> None:
    options = ["--groups", "30", "--days", "200", "--later", "20", "--few"]
    shown = CliRunner().invoke(app, options, catch_exceptions=False).stdout
    known, young = (line.split("|") for line in shown.splitlines() if line.startswith(f"| {OURS}"))
    for _, _, auc, found, false_alarms, ordinary, *_ in (known, young):
        assert float(auc) > 0.98
        assert float(found.strip().rstrip("%")) > 90
        for share in (false_alarms, ordinary):
            assert float(share.strip().rstrip("%")) == pytest.approx(1, abs=1.5)
    assert "20 days with two broken groups each" in shown
    assert shown.count(" yes\n") == 2


def test_young_groups_too_few_for_a_pool_are_judged_by_groups_placed_as_roughly() -> None:
    """Thirty groups of 14 days: 83 rows to calibrate on. By all groups' rows it was 3 %."""
    false = []
    for seed in (3, 5):
        gen = np.random.default_rng(seed)
        case = Case.of(World.of(90, gen), 540, 60, gen)
        young = Case.of(World.of(30, gen, "new country"), 14, 60, gen)
        way = Collaborative(alpha=0.01, batch_size=1024, max_epochs=15)
        way.learn(case.before)
        way.admit(young.before)
        false.append(way.judge(young.ordinary)[1].mean())
        assert way.judge(young.later)[1][young.hit].mean() > 0.95
    assert np.mean(false) < 0.015


def test_of_several_worlds_the_mean_and_the_range_are_shown() -> None:
    options = ["--groups", "12", "--days", "60", "--later", "6", "--few", "--max-epochs", "2"]
    found = []
    for more in (["--seed", "3"], ["--seed", "4"], ["--seed", "3", "--worlds", "2"]):
        shown = CliRunner().invoke(app, options + more, catch_exceptions=False).stdout
        rows = [
            line.split("|")[4] for line in shown.splitlines() if line.startswith(f"| {QUICKEST}")
        ]
        found.append([float(share) for share in re.findall(r"[\d.]+", rows[1])])
    [one], [other], [mean, low, high] = found
    assert one != other
    assert (low, high) == (min(one, other), max(one, other))
    assert mean == pytest.approx((one + other) / 2, abs=0.011)
    assert "2 worlds, each of 12 groups" in shown


@pytest.mark.parametrize("page", ["docs/detector.md", "README.md"])
def test_the_code_of_the_documentation_prints_what_stands_below_it(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path(page).read_text()
    [(code, shown)] = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})  # noqa: S102 - our own
    assert capsys.readouterr().out == shown
