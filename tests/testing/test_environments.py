"""Every environment check catches a violation of what the training loop relies on, and gives the remedy."""

from __future__ import annotations

import functools
import os
import re
import threading
from typing import Any

import gymnasium
import pytest

import envs
from curl_rl.testing import ENVIRONMENT_CHECKS, CheckFailed, CheckWarning, check_environment
from helpers import wrong_environments as wrong
from helpers.corridor import Corridor

# Class, the first check that it fails, the finding, the remedy.
MUTANTS: list[tuple[Any, str, str, str]] = [
    (wrong.FloatSpace, "spaces", "observations must be uint8 (C, H, W), got Box(0.0", "scaling to the encoder"),
    (wrong.DiscreteActions, "spaces", "actions must be vectors of real numbers", "RescaleAction"),
    (wrong.WideActions, "spaces", "actions must be in [-1, 1], got Box(-2.0", "RescaleAction"),
    (wrong.ChannelsLast, "spaces", "seem to have their channels last", "np.moveaxis"),
    (wrong.FiveChannels, "spaces", "5 channels are not a stack of 2 frames", "stack=..."),
    (wrong.ResetWithoutOptions, "reset_and_step", "reset(seed=..., options=...) fails", "def reset(self, *, seed"),
    (wrong.ResetWithoutInfo, "reset_and_step", "reset returns an array of uint8", "Return (observation, info)"),
    (wrong.OldStep, "reset_and_step", "step returns 4 values", "(observation, reward, terminated, truncated, info)"),
    (wrong.Breaks, "rewards", "it raised ZeroDivisionError: the simulator (wrong_environments.py, line", ""),
    (wrong.RewardNotANumber, "rewards", "the reward of step 2 is nan", "finite in float32"),
    (wrong.RewardAsArray, "rewards", "the reward of step 1 is an array of float64, shape (1,)", "float(reward)"),
    (wrong.EndAsNumber, "ends", "terminated of step 1 is int 0", "bool(terminated)"),
    (wrong.NoInfo, "infos", "info of step 1 is None", "Return a dict"),
    (wrong.NoStepsTaken, "infos", 'info["environment_steps"] of step 1 is 0', "at least 1"),
    (wrong.HalfAStep, "infos", 'info["environment_steps"] of step 1 is 1.5', "at least 1"),
    (wrong.FloatFrames, "observations", "of reset is an array of float32", "NumPy array of uint8"),
    (wrong.Lists, "observations", "of reset is a list", "NumPy array of uint8"),
    (
        wrong.AnotherShape,
        "observations",
        "of reset has shape (6, 9, 10), but the space has (6, 10, 10)",
        "channels first",
    ),
    (wrong.OutsideOfTheSpace, "observations", "of reset is outside the space Box(0, 100", "Box(0, 255"),
    (wrong.BlackBeforeTheFirstFrame, "frame_stack", "is not one frame 2 times", "Fill the stack"),
    (wrong.NewestFrameFirst, "frame_stack", "of step 1 is not the previous one shifted", "drop the oldest"),
    (wrong.OneBuffer, "kept_arrays", "the observation of reset was changed by a later step", "buffer.copy()"),
    (wrong.WritesIntoTheAction, "kept_arrays", "writes into the action", "Compute a new array"),
    (wrong.NeverEnds, "episodes_end", "has not ended after 40 steps", "TimeLimit"),
    (
        wrong.EndsTooLate,
        "episodes_end",
        "max_episode_steps is 6, but an episode has not ended by then",
        "truncated = True",
    ),
    (wrong.Unseeded, "seeding", "the same seed and actions give a different", "self.np_random"),
    (wrong.UnseededStart, "seeding", "give a different first observation", "super().reset(seed=seed)"),
    (wrong.GoesOnFromTheLastEpisode, "seeding", "in a used environment the same seed and actions", "keep no state"),
    (wrong.SharesItsState, "seeding", "give a different reward in step 1", "in the class"),
    (wrong.SeesTwice, "spaces", "must be a dict of one image, uint8 (C, H, W), and vectors", "channels to the front"),
    (
        wrong.NotFeltAtTheEnd,
        "observations",
        "is ['pixels'], but the space has ['pixels', 'place']",
        "a dict with these",
    ),
    (wrong.SeesFloats, "observations", "pixels in the observation of reset is an array of float32", "array of uint8"),
    (wrong.FeltInDoublePrecision, "observations", "place in the observation of reset is an array of float64", "type"),
    (wrong.FeltAsNothing, "observations", "place in the observation of reset is [nan]", "return finite numbers"),
    (wrong.OneBufferOfFeelings, "kept_arrays", "the observation of reset was changed by a later step", "buffer.copy()"),
    (wrong.FeltUnseeded, "seeding", "a different first observation", "self.np_random"),
    (wrong.ClosesOnce, "close", "the second close raises RuntimeError: closed already", "Make close do nothing"),
]


def caught(make: Any, **arguments: Any) -> str:
    with pytest.raises(CheckFailed) as error:
        check_environment(make, stack=2, steps=40, **arguments)
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.mark.parametrize(("make", "check", "found", "remedy"), MUTANTS, ids=[row[0].__name__ for row in MUTANTS])
def test_what_the_loop_cannot_work_with_is_caught_by_name(make: Any, check: str, found: str, remedy: str) -> None:
    message = caught(make)
    assert message.startswith(f"{make.__name__}, check {check}: ")
    assert found in message
    assert remedy in message


def test_make_must_give_an_environment_of_its_own_each_time() -> None:
    message = caught(wrong.NoEnvironment)
    assert message.startswith("the environment, check environments: make returns NoEnvironment")
    one = Corridor()
    assert "make returns the same environment on every call. Build it inside make" in caught(lambda: one)


def test_a_picture_that_never_changes_is_worth_a_warning() -> None:
    with pytest.warns(CheckWarning, match="the picture is the same in all [3-5] random steps"):
        check_environment(wrong.Constant, stack=2, checks=["picture"])


def test_what_cannot_be_sent_to_another_process_or_differs_there_is_caught() -> None:
    lock = threading.Lock()

    def make() -> Any:
        with lock:
            return Corridor()

    message = caught(make, checks=["worker"])
    assert "check worker: it cannot be made in a separate process: TypeError: cannot pickle" in message
    assert "Build everything inside make" in message

    class OfThisProcess(wrong.Changed):
        def __init__(self, here: int) -> None:
            super().__init__()
            self.bonus = float(os.getpid() != here)

        def outcome(self, observation: Any, reward: Any, *rest: Any) -> Any:
            return observation, reward + self.bonus, *rest

    message = caught(functools.partial(OfThisProcess, os.getpid()), checks=["worker"])
    assert "in a separate process the same seed and actions give a different reward in step 1" in message
    assert "Depend on nothing that differs between processes" in message


def test_every_check_has_something_to_catch() -> None:
    assert {check for _, check, *_ in MUTANTS} | {"environments", "picture", "worker"} == set(ENVIRONMENT_CHECKS)


@pytest.mark.parametrize("stack", [1, 3])
def test_our_own_environments_pass(stack: int) -> None:
    check_environment(lambda: envs.make("tiny-reach", size=16, stack=stack, action_repeat=2), stack=stack)


def test_the_corridor_of_the_tests_passes() -> None:
    check_environment(Corridor, stack=2)


def test_pixels_with_vectors_beside_them_pass() -> None:
    check_environment(wrong.Felt, stack=2)


def test_a_time_limit_of_gymnasium_is_taken_for_what_it_is() -> None:
    check_environment(
        lambda: gymnasium.wrappers.TimeLimit(wrong.NeverEnds(), 12), stack=2, steps=40, checks=["episodes_end"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stack": 0}, "stack must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"checks": ["reward"]}, "got 'reward'; did you mean rewards?"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_environment(Corridor, **({"stack": 2} | arguments))
