"""Programs to read and to copy; each runs by itself in under a minute on a CPU."""
