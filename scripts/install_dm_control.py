#!/usr/bin/env python
"""Install dm_control where pip alone cannot. See --help, or curl_rl/commands/install_dm_control.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curl_rl.commands.install_dm_control import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
