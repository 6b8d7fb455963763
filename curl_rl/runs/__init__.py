"""What every run is made of: its directory, checkpoints, log, console, signals and faults."""
