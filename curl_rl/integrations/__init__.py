"""Encoders and objectives in other people's libraries: one file each, imported by name, thin.

Each file needs the library that it is named after; the package without them needs none (see the extras in setup.cfg).
"""
