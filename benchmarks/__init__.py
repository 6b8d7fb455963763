"""Speed of the package compared with a plain implementation; run by `scripts/benchmark.py`."""
