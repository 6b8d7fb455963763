"""Sweeps: many runs, by task, preset, settings and seed, as resumable jobs on one machine or on a cluster."""
