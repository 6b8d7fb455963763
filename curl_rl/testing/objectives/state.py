"""Checks of an objective's state: it is in buffers, changes only where it may, and is saved completely."""

from __future__ import annotations

import copy

import torch

from curl_rl.objectives import Objective
from curl_rl.testing.failures import require
from curl_rl.testing.objectives.case import ObjectiveCase, changes, random_states, state_of

_FAR = 10.0
_IN_BUFFERS = "Keep state in buffers (register_buffer): nothing else is saved or visible to a CUDA graph."


def after_step(case: ObjectiveCase) -> None:
    """``after_step`` changes only buffers and the parameters that ``projected`` names."""
    objective = case.warm()
    changed = _changed_by_a_step(case, objective)
    parameters = {name for name, _ in objective.named_parameters()}
    learned = sorted((changed & parameters) - objective.projected)
    require(
        not learned,
        f"after_step changes the parameter {', '.join(learned)}",
        "Leave it to the optimizer, or name it in projected if after_step projects it onto its constraint set.",
    )
    others = sorted(changed - parameters - {name for name, _ in objective.named_buffers()})
    require(not others, f"after_step changes {', '.join(others)}, which is not a buffer", _IN_BUFFERS)
    # A set may be bounded on one side only, and then a parameter changes only if it was beyond the bound.
    for by in (_FAR, -_FAR) if objective.projected - changed else ():
        changed |= _changed_by_a_step(case, case.warm(), by)
    still = sorted(objective.projected - changed)
    require(
        not still,
        f"projected names {', '.join(still)}, which after_step does not change",
        "Project it onto its constraint set in after_step, or remove it from projected.",
    )


def _changed_by_a_step(case: ObjectiveCase, objective: Objective, by: float = 0.0) -> set[str]:
    """What a step changes after the optimizer has moved the parameters a little, or some of them far."""
    case.nudge(objective)
    case.push(objective, by)
    before = state_of(objective)
    case.step(objective)
    return set(changes(before, state_of(objective)))


def projected(case: ObjectiveCase) -> None:
    """A parameter that ``after_step`` has projected stays unchanged until the optimizer moves it."""
    objective = case.warm()
    case.step(objective, seed=1)
    before = {name: value.detach().clone() for name, value in objective.named_parameters()}
    case.step(objective, seed=2)
    for name, value in objective.named_parameters():
        require(
            name not in objective.projected or torch.allclose(value, before[name]),
            f"after_step moves {name} again, although nothing has moved it since the last projection",
            "Projecting twice must give the same as projecting once.",
        )


def state_is_saved(case: ObjectiveCase) -> None:
    """A copy that loads the ``state_dict`` between two steps continues identically."""
    objective, other = case.warm(), case.fresh()
    other.load_state_dict(copy.deepcopy(objective.state_dict()))
    for epoch in range(3):
        ours, theirs = (case.step(one, seed=epoch, momentum=0.7) for one in (objective, other))
        require(torch.equal(ours, theirs), "a copy that has loaded its state_dict has a different loss", _IN_BUFFERS)
        for one in (objective, other):
            one.between_epochs(epoch, torch.Generator().manual_seed(epoch))
    differ = changes(state_of(objective), state_of(other))
    require(
        not differ,
        f"a copy that has loaded its state_dict and taken the same steps differs in {', '.join(differ)}",
        _IN_BUFFERS,
    )


def between_epochs(case: ObjectiveCase) -> None:
    """``remember`` and ``between_epochs`` draw only from the given generator and keep their state in buffers."""
    objective, again = case.warm(), case.warm()
    before, random = state_of(objective), random_states()
    metrics, _ = (case.pass_over_all(one, seed=3) for one in (objective, again))
    require(
        random == random_states() and not changes(state_of(objective), state_of(again)),
        "remember and between_epochs draw from a global random generator, or give a different result the second time",
        "Draw from the generator passed to between_epochs: every process, and a resumed run, must get the same result.",
    )
    for name, value in metrics.items():
        require(
            value.shape == () and not value.requires_grad and value.isfinite(),
            f"between_epochs returns {value} as {name}",
            "Return finite, detached scalars.",
        )
    changed = set(changes(before, state_of(objective)))
    others = sorted(changed - {name for name, _ in objective.named_buffers()})
    require(not others, f"remember or between_epochs changes {', '.join(others)}, which is not a buffer", _IN_BUFFERS)
    wants = objective.wants_all(0)
    require(
        wants is None or changed,
        f"wants_all(0) is {wants!r}, but remember and between_epochs store nothing",
        "Fill a buffer in remember, or return None.",
    )
    # A method whose steps fill the same buffers works where these calls are never made.
    stepped = case.fresh()
    before = state_of(stepped)
    case.step(stepped)
    only_here = changed - set(changes(before, state_of(stepped)))
    undeclared = ({"epochs"} if only_here else set()) | ({"indices"} if wants is not None else set())
    missing = sorted(undeclared - objective.needs)
    require(
        not missing,
        f"needs does not declare {', '.join(missing)}, which remember and between_epochs rely on",
        "Declare it: users that never call them, such as reinforcement learning, then refuse the method at the start.",
    )


def evaluation(case: ObjectiveCase) -> None:
    """In evaluation mode and without gradients, the loss is finite and no state changes."""
    objective = case.warm().eval()
    before = state_of(objective)
    with torch.no_grad():
        loss = objective(*case.inputs(seed=6)).loss
    changed = changes(before, state_of(objective))
    require(not changed, f"an evaluation changes {', '.join(changed)}", "Change state only in after_step.")
    require(loss.isfinite(), f"the loss is {loss.item()} in evaluation mode", "Compute it as in training mode.")
