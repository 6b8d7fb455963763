"""Data sets from packages of Debian and PyPI, installed or unpacked: found, converted and written with their licenses.

Each module reads one package, or a few that belong together. Nothing is downloaded, and nothing is run.
"""
