#!/usr/bin/env python
"""Report whether this machine is ready for training. See --help, or curl_rl/commands/doctor.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curl_rl.commands.doctor import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
