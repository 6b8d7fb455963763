"""Standalone programs to read and copy; each runs in under a minute on a CPU."""
