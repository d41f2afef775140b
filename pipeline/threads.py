"""How torch's threads wait for each other: every stage says it before torch is loaded."""

import os

SPINS = 10_000  # of a thread that has nothing to do, before it sleeps: a fraction of a millisecond


def sleep_when_idle() -> None:
    """Have threads that wait sleep soon, unless the environment says how they do.

    GNU's OpenMP lets them spin for ten milliseconds or more after each operation. Where another
    process keeps a core busy they hold the other one, for which the last of them waits, and a
    training takes several times as long (docs/performance.md). It reads this when torch is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
