#!/usr/bin/env python
"""Export a trained agent's policy for use outside this package. See --help, or curl_rl/commands/export_policy.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curl_rl.commands.export_policy import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
