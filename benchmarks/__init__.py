"""Benchmarks on real models: run them with ``make bench``."""
