#!/usr/bin/env python
"""Train an open-world object detector. See --help, or curl_rl/commands/train_detector.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curl_rl.commands.train_detector import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
