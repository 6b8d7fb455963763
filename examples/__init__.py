"""Standalone programs to read and copy; README.md lists them. Each runs in minutes on one CPU core."""
