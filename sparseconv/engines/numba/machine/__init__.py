"""What is private to Numba and llvmlite: compiler, threads, vectors; checked before it is used."""

from sparseconv.engines.numba.machine import private_names

private_names.check()
