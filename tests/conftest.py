"""Shared by all tests."""

from __future__ import annotations

import torch

# The shapes in the tests are tiny: a second thread only waits for the first one.
torch.set_num_threads(1)
