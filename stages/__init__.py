"""One typer CLI a DVC stage: read params and Parquet, call the library, write, say one line."""

import importlib.util
import sys

if importlib.util.find_spec("typer") is None:
    sys.exit(
        f"{sys.executable} lacks this project's packages: run `make setup`, then "
        "`source .venv/bin/activate`."
    )
