#!/usr/bin/env python
"""Evaluate pretrained encoders by the standard protocols. See --help, or curl_rl/commands/evaluate_vision.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curl_rl.commands.evaluate_vision import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
