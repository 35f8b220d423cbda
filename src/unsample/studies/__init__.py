"""Measurements: comparison at equal cost, the editing benchmark, the experiments of the paper."""
