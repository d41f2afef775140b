"""The heavy part of `prepare` and `filter_tasks` on Spark: `runtime.engine: spark`.

Exposures stay on Spark's workers; what is as small as the users or the items comes back. The laws
are those of the embedded engine, and so is the code wherever a row can be looked at by itself.
"""
