#!/usr/bin/env python
"""Detect objects in pictures with a trained detector. See --help, or curl_rl/commands/detect.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curl_rl.commands.detect import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
