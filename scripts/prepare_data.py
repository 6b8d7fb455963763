#!/usr/bin/env python
"""Prepare images with captions, sentences and judged pairs. See --help, or curl_rl/commands/prepare_data.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curl_rl.commands.prepare_data import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
