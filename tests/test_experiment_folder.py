"""An experiment's folder: which stages run at once, and what the exit status tells."""

import os
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import typer

from experiments.folder import needed, run_folder

PIPELINE = """
stages:
  first:
    matrix: {n: [1, 2, 3, 4]}
    cmd: python ../one.py first ${item.n}
    outs: ["first-${item.n}"]
  second:
    matrix: {n: [1, 2]}
    cmd: python ../one.py second ${item.n}
    deps: [first-1, first-2, first-3, first-4]
    outs: ["second-${item.n}"]
  last:
    cmd: python ../one.py last 0
    deps: [second-1, second-2]
    outs: [last-0]
"""

# Tells when it was at work, and on how many threads.
ONE = """
import os, sys, time
from pathlib import Path
stage, n = sys.argv[1:]
if n == os.environ.get("FAILS"):
    sys.exit(3)
begin = time.time()
time.sleep(1)
Path(f"{stage}-{n}").write_text(f"{begin} {time.time()} {os.environ.get('OMP_NUM_THREADS')}")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    made = tmp_path / "made"
    made.mkdir()
    (tmp_path / "one.py").write_text(ONE)
    (made / "dvc.yaml").write_text(PIPELINE)
    (made / "tiny.yaml").write_text("data:\n  raw_dir: null\n")
    subprocess.run(["dvc", "init", "-q", "--no-scm"], check=True)
    return Path("made")


def run(folder: Path, jobs: int) -> int:
    with pytest.raises(typer.Exit) as ended:
        run_folder(folder, "tiny", None, jobs)
    return ended.value.exit_code


def times(folder: Path, name: str) -> tuple[float, float]:
    begin, end, _ = (folder / name).read_text().split()
    return float(begin), float(end)


def test_two_jobs_run_two_instances_of_a_stage_at_once(folder: Path) -> None:
    assert run(folder, 2) == 0
    firsts = sorted(times(folder, f"first-{n}") for n in range(1, 5))
    assert any(later[0] < one[1] for one, later in pairwise(firsts))
    second = [times(folder, f"second-{n}") for n in (1, 2)]
    assert min(begin for begin, _ in second) > max(end for _, end in firsts)
    assert (folder / "last-0").exists()
    share = max(1, (os.cpu_count() or 1) // 2)
    assert (folder / "first-1").read_text().split()[2] == str(share)
    before = (folder / "first-3").read_text()
    assert run(folder, 2) == 0
    assert (folder / "first-3").read_text() == before  # nothing is left to do


def test_one_job_leaves_the_order_to_dvc(folder: Path) -> None:
    assert run(folder, 1) == 0
    firsts = sorted(times(folder, f"first-{n}") for n in range(1, 5))
    assert all(later[0] > one[1] for one, later in pairwise(firsts))
    assert (folder / "first-1").read_text().split()[2] == "None"


def test_a_failed_stage_stops_those_after_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILS", "3")
    assert run(folder, 2) != 0
    assert not list(folder.glob("second-*"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_without_dvc_the_params_stay_and_one_line_says_so(
    folder: Path, jobs: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "params.yaml").write_text("mine")
    monkeypatch.setenv("PATH", "")
    assert run(folder, jobs) == 1
    assert capsys.readouterr().err.startswith("made: dvc: there is no such command here; first `so")
    assert (folder / "params.yaml").read_text() == "mine"


def test_a_pipeline_that_dvc_cannot_read_is_its_error_alone(folder: Path) -> None:
    (folder / "dvc.yaml").write_text("stages: [")
    assert run(folder, 2) != 0


def test_a_stage_needs_those_of_its_file_that_the_graph_says() -> None:
    dot = 'strict digraph {\n"f/dvc.yaml:a@1";\n"f/dvc.yaml:a@1" -> "f/dvc.yaml:b";\n"x" -> "y";\n}'
    assert needed("f/dvc.yaml:a@1\nf/dvc.yaml:b\n", dot) == {
        "f/dvc.yaml:a@1": set(),
        "f/dvc.yaml:b": {"f/dvc.yaml:a@1"},
    }


def test_a_stage_waits_for_what_it_needs_and_for_no_other(folder: Path) -> None:
    """`second-1` needs `first-1` alone, and begins while `first-2` is at work."""
    pipeline = PIPELINE.replace("n: [1, 2, 3, 4]", "n: [1, 2]")
    pipeline = pipeline.replace("[first-1, first-2, first-3, first-4]", '["first-${item.n}"]')
    (folder / "dvc.yaml").write_text(pipeline)
    slow = ONE.replace("time.sleep(1)", "time.sleep(8 if (stage, n) == ('first', '2') else 0.1)")
    (folder.parent / "one.py").write_text(slow)
    assert run(folder, 2) == 0
    assert times(folder, "second-1")[1] < times(folder, "first-2")[1]
    assert times(folder, "second-2")[0] > times(folder, "first-2")[1]
