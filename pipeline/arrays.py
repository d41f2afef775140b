"""Names of array types, for annotations."""

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]  # of either precision
Codes = Ints | npt.NDArray[np.str_]  # what stands in a column of users: numbers or text
