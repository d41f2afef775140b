"""Without PySpark the engine Spark is one line of error; no other engine stands in for it."""

import sys
from pathlib import Path

import pytest

from tests.projects import contents, invoke, set_params, small_project


@pytest.mark.parametrize("stage", ["prepare", "filter_tasks"])
def test_a_missing_package_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    project = small_project(tmp_path / "project")
    assert invoke(project, "prepare").exit_code == 0
    before = contents(project)
    set_params(project, {"runtime": {"engine": "spark"}})
    for package in ("pyspark", "py4j"):
        monkeypatch.setitem(sys.modules, package, None)
        for module in [name for name in sys.modules if name.startswith(f"{package}.")]:
            monkeypatch.delitem(sys.modules, module)
    ran = invoke(project, stage)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr == (
        f"{stage}: params.yaml: runtime.engine is spark, but pyspark is not installed; `pip "
        "install -r requirements-spark.txt -c constraints.txt`, or set it to embedded.\n"
    )
    assert contents(project) == before
