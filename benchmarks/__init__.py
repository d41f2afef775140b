"""How fast the pipeline is beside plain implementations of the same thing; `make benchmark`."""
