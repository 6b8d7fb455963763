#!/usr/bin/env python
"""Search a folder of images for what texts describe. See --help, or curl_rl/commands/search_images.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curl_rl.commands.search_images import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
