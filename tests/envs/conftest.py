"""Fixtures for tests that render with OpenGL."""

import os

import pytest

from envs import rendering


@pytest.fixture(scope="session")
def opengl() -> rendering.Backend:
    """The machine's backend; without one the test is skipped, except in CI, which installs one."""
    try:
        return rendering.choose_backend()
    except rendering.RenderingUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
