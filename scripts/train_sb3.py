#!/usr/bin/env python
"""Train Stable-Baselines3's SAC from pixels. See --help, or curl_rl/commands/train_sb3.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import envs
from curl_rl.commands.train_sb3 import main
from envs.rendering import RenderingUnavailable

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], envs.make, RenderingUnavailable))
