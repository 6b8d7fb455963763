#!/usr/bin/env python
"""Search for a schedule of augmentation policies. See --help, or curl_rl/commands/search_augmentation.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curl_rl.commands.search_augmentation import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
