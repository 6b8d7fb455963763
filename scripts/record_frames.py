#!/usr/bin/env python
"""Record frames of an environment into a folder. See --help, or curl_rl/commands/record_frames.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import envs
from curl_rl.commands.record_frames import main
from envs.rendering import RenderingUnavailable

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], envs.make, RenderingUnavailable))
