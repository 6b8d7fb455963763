#!/usr/bin/env python
"""Train many agents as resumable jobs. See --help, or curl_rl/commands/sweep.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import envs
from curl_rl.commands.sweep import main
from envs.rendering import RenderingUnavailable

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], envs.make, RenderingUnavailable))
