"""The parts that every run shares: directory, checkpoints, log, console, signals and faults."""
