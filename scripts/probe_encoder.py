#!/usr/bin/env python
"""Probe encoders for the physical state. See --help, or curl_rl/commands/probe_encoder.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curl_rl.commands.probe_encoder import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
