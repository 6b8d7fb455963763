#!/usr/bin/env python
"""Reword sentences. See --help, or curl_rl/commands/augment_text.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curl_rl.commands.augment_text import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
