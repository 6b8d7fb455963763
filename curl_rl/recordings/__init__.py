"""Recorded frames on the disk: writing them, reading them, and probing encoders on them."""
