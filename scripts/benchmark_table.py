#!/usr/bin/env python
"""Write the table of CURL's paper for this package's runs. See --help, or curl_rl/commands/benchmark_table.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curl_rl.commands.benchmark_table import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
