"""What an answer can be written as."""

from typing import Literal

Format = Literal["table", "csv", "json", "parquet"]
