"""Spark, started for a stage, with this project's code on its workers."""

import os
import re
import shutil
import subprocess
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PACKAGE = Path(__file__).parents[1]
LOCAL = {  # of this machine alone: nothing listens to others
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": "8",
}
INSTALLING = "install it (Debian: apt-get install default-jre-headless), or set it to embedded."
SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
}


@contextmanager
def spark_session(master: str) -> Iterator["SparkSession"]:
    """A session at `master`, ended with the block unless it was there before.

    Raises:
        PipelineError: pyspark or Java is missing, or Spark fails; never is anything else used
            instead.
    """
    try:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise PipelineError(
            "params.yaml: runtime.engine is spark, but pyspark is not installed; "
            "`pip install -r requirements-spark.txt -c constraints.txt`, or set it to embedded."
        ) from None
    _require_java()
    there = SparkSession.getActiveSession()
    try:
        with ExitStack() as exits:
            yield there or _start(SparkSession.builder, master, exits)
    except (PySparkException, Py4JError) as error:
        raise PipelineError(f"Spark at {master} failed: {_told(str(error))}") from error


def _start(builder: "SparkSession.Builder", master: str, exits: ExitStack) -> "SparkSession":
    warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
    builder = builder.master(master).appName("collaborative-anomaly-detection")
    for key, value in (SETTINGS | (LOCAL if master.startswith("local") else {})).items():
        builder = builder.config(key, value)
    folder = exits.enter_context(tempfile.TemporaryDirectory())  # workers fetch from it
    spark = builder.getOrCreate()
    exits.callback(spark.stop)
    spark.sparkContext.addPyFile(str(_packed(Path(folder) / "pipeline.zip")))
    return spark


def _packed(file: Path) -> Path:
    """This package as a zip, which workers import from."""
    with zipfile.ZipFile(file, "w") as archive:
        for code in sorted(PACKAGE.rglob("*.py")):
            archive.write(code, code.relative_to(PACKAGE.parent))
    return file


def _require_java() -> None:
    home = os.environ.get("JAVA_HOME")
    java = Path(home, "bin", "java") if home else shutil.which("java")
    if java is None or not Path(java).exists():
        raise PipelineError(
            "params.yaml: runtime.engine is spark, which needs Java 17 or newer, but found "
            f"{f'none in JAVA_HOME {home}' if home else 'no java on PATH'}; {INSTALLING}"
        )
    asked = subprocess.run([java, "-version"], capture_output=True, check=False)  # noqa: S603
    if asked.returncode:
        raise PipelineError(
            f"params.yaml: runtime.engine is spark, which needs Java 17 or newer, but {java} does "
            f"not run; {INSTALLING}"
        )


def _told(error: str) -> str:
    """What a worker said if it was this project, else the first line of Spark's own words."""
    if "stopped SparkContext" in error:
        return "nothing answers there; look at runtime.spark_master."
    ours = re.search(r"PipelineError: (.+)", error)
    lines = [line.removeprefix(": ") for line in error.strip().splitlines()]
    called = lines[0].startswith("An error occurred while calling")  # Py4J's own first line
    return ours[1] if ours else lines[called and len(lines) > 1]
