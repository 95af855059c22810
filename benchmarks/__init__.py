"""Benchmarks of the public functions, run by ``pytest --benchmark`` from the root."""
