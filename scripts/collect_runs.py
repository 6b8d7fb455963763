#!/usr/bin/env python
"""Collect runs into one CSV file. See --help, or curl_rl/commands/collect_runs.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curl_rl.commands.collect_runs import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
