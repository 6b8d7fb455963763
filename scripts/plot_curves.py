#!/usr/bin/env python
"""Draw learning curves. See --help, or curl_rl/commands/plot_curves.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curl_rl.commands.plot_curves import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
