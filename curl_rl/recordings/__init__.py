"""Recorded frames on disk: writing, reading, and probing encoders on them."""
