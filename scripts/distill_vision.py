#!/usr/bin/env python
"""Distill a classifier into a student. See --help, or curl_rl/commands/distill_vision.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curl_rl.commands.distill_vision import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
