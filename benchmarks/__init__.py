"""How fast the package is, beside a plain implementation of the same; `scripts/benchmark.py` runs it."""
