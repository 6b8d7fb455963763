"""Conformance tests for your own objectives and environments: the checks that ours pass.

A failure reports in one or two lines what is wrong and how to fix it. Nothing else in this package imports these tests.
"""

from curl_rl.testing.environments import ENVIRONMENT_CHECKS, check_environment
from curl_rl.testing.failures import CheckFailed, CheckWarning
from curl_rl.testing.host_sync import HostSync, NoHostSync
from curl_rl.testing.objectives import OBJECTIVE_CHECKS, check_objective

__all__ = [
    "ENVIRONMENT_CHECKS",
    "OBJECTIVE_CHECKS",
    "CheckFailed",
    "CheckWarning",
    "HostSync",
    "NoHostSync",
    "check_environment",
    "check_objective",
]
