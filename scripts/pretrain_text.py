#!/usr/bin/env python
"""Pretrain a text encoder on sentences without labels. See --help, or curl_rl/commands/pretrain_text.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curl_rl.commands.pretrain_text import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
