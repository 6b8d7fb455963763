"""Several objectives at once in an agent: losses, shared views, refusals, and a run that is resumed."""

from __future__ import annotations

import copy
import dataclasses
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from curl_rl.objectives import CPCConfig, MoCoConfig, ObjectiveConfigs, SwAVConfig
from curl_rl.rl.agent import Agent, AgentConfig, UpdateInputs
from curl_rl.rl.config import changed_fields, load_preset, parse_command_line, read_config, save_config
from curl_rl.runs.errors import UserError
from curl_rl.runs.signals import Stopped
from helpers.corridor import assert_same_run, at, rows, terminate, tiny, trained
from helpers.small_agent import ACTIONS, BATCH, SHAPE, SMALL, make_batch, snapshot

CONFIGS = ObjectiveConfigs(
    cpc=CPCConfig(steps=2, actions=True),
    moco=MoCoConfig(queue=11),
    swav=SwAVConfig(5, frozen_steps=0, head_layers=1, target="slow", future=1, predictor=True),
)


def make(objective: str, weight: Any = 1.0, **changes: Any) -> Agent:
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, objective=objective, objective_weight=weight, **changes)
    return Agent(SHAPE, ACTIONS, config, CONFIGS).double()


def inputs_of(agent: Agent, seed: int = 0) -> UpdateInputs:
    batch = make_batch(seed, future=len(agent.future_offsets))
    actions = torch.rand(BATCH, 2, ACTIONS, generator=torch.Generator().manual_seed(seed))
    return agent.draw(batch._replace(actions_ahead=actions), torch.Generator().manual_seed(seed))


def update(agent: Agent, seed: int = 0) -> dict[str, torch.Tensor]:
    return agent.update(inputs_of(agent, seed))


@pytest.mark.parametrize("rule", ["exact", "joint"])
def test_each_loss_is_logged_by_name_and_their_weighted_sum_trains(rule: Any) -> None:
    agent, curl = make("curl+cpc", (1.0, 0.1), update_rule=rule), make("curl", update_rule=rule)
    before = snapshot(agent)
    inputs = inputs_of(agent)  # with more views than CURL asks for
    metrics, alone = agent.update(inputs), curl.update(inputs)
    assert torch.equal(metrics["objective/curl/loss"], alone["objective/loss"])
    assert torch.equal(metrics["objective/curl/accuracy"], alone["objective/accuracy"])
    total = metrics["objective/curl/loss"] + 0.1 * metrics["objective/cpc/loss"]
    assert torch.allclose(metrics["objective/loss"], total, rtol=1e-12)
    for name, value in agent.state_dict().items():
        if name.startswith("objective."):
            assert not torch.equal(value, before[name]), name


def test_one_objective_is_as_before_in_metrics_and_state() -> None:
    agent = make("curl")
    assert [name for name in agent.state_dict() if name.startswith("objective")] == ["objective.W"]
    assert {name for name in update(agent) if name.startswith("objective/")} == {
        *("objective/loss", "objective/accuracy", "objective/confidence", "objective/logits_std"),
        "objective/gradient_norm",
    }


def test_a_weight_scales_the_gradient_of_a_joint_update() -> None:
    """Of the encoder: that of the critics' loss plus the weight times that of the objective's."""
    gradients = {}
    for weight in (1.0, 0.25, 1e-9):
        agent = make("curl", weight, update_rule="joint", critic_lr=1e-9)
        moments = agent.critic_optimizer.state
        update(agent)
        gradients[weight] = [moments[p]["exp_avg"] for p in agent.encoder.parameters()]
    for whole, quarter, critics in zip(*gradients.values(), strict=True):
        assert torch.allclose(quarter - critics, 0.25 * (whole - critics), rtol=1e-6, atol=1e-10)


def test_a_view_that_objectives_share_is_encoded_once_and_futures_are_joined() -> None:
    agent = make("curl+moco+swav+cpc")
    assert agent.future_offsets == (1, 2)
    encoded: list[tuple[int, ...]] = []
    encode = agent.target_encoder.encode
    agent.target_encoder.encode = lambda images: encoded.append(tuple(images.shape)) or encode(images)  # type: ignore
    update(agent)
    # For the critics' target the slow encoder is called, which encodes; then views 1, 1 after one step, 2 after two.
    assert len(encoded) == 1 + 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objective": "curl+supcon"},
            r"agent.objective supcon needs labels, which a replay does not have: take simclr",
        ),
        ({"objective": "curl+pcl"}, r"agent.objective pcl needs epochs and indices, which a replay does not .*"),
        (
            {"objective": "curl+cpc", "objective_weight": (1.0,)},
            r"agent.objective_weight must be one number, or one for each of curl and cpc, got \[1.0\]",
        ),
        (
            {"objective": "curl+cpc", "freeze_encoder": True},
            r"agent.freeze_encoder leaves agent.objective curl\+cpc .*",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"\A{message}\Z"):
        Agent(SHAPE, ACTIONS, dataclasses.replace(SMALL, **changes))


def test_the_command_line_and_the_file_of_a_run(tmp_path: Path) -> None:
    flags = ["--preset", "cpu", "--agent.objective", "curl+cpc", "--agent.objective_weight"]
    config = parse_command_line([*flags, "[1,0.1]"], program="p", description="")[0]
    assert (config.agent.objective, config.agent.objective_weight) == ("curl+cpc", (1.0, 0.1))
    save_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config
    with pytest.raises(UserError, match=r"\Aagent\.objective_weight must be a finite number or a list, [^\n]*\Z"):
        parse_command_line([*flags, "heavy"], program="p", description="")
    # A file from before the setting existed, and before files counted their settings.
    older = [line for line in (tmp_path / "config.yaml").read_text().splitlines() if not line.startswith("#")]
    start = older.index("  objective_weight:")
    (tmp_path / "config.yaml").write_text("\n".join([*older[:start], *older[start + 3 :], ""]))
    assert read_config(tmp_path / "config.yaml").agent.objective_weight == 1


@pytest.mark.parametrize("weight", [0.0, -1.0, (), (1.0, -1.0), (1.0, float("nan")), "heavy"])
def test_weights_that_are_not_positive_are_refused(weight: Any) -> None:
    with pytest.raises(
        ValueError, match=r"\Aagent\.objective_weight must be positive and finite, or a list of such, got"
    ):
        AgentConfig(objective="curl+cpc", objective_weight=weight)


def test_the_settings_of_every_method_in_use_are_part_of_the_run() -> None:
    old = load_preset("cpu", "cheetah-run", {"agent": {"objective": "curl+moco"}})
    moco = dataclasses.replace(old.objectives.moco, queue=old.objectives.moco.queue + 1)
    new = dataclasses.replace(old, objectives=dataclasses.replace(old.objectives, moco=moco))
    assert changed_fields(old, new).keys() == {"objectives.moco.queue"}


def test_a_stopped_run_with_several_objectives_resumes_to_the_last_bit(tmp_path: Path) -> None:
    def configured(name: str) -> Any:
        config = tiny(tmp_path / name, objectives=CONFIGS)
        own = dataclasses.replace(config.agent, objective="curl+moco+cpc", objective_weight=(1.0, 0.5, 0.1))
        return dataclasses.replace(config, agent=own)

    whole, config = trained(configured("whole")), configured("stopped")
    with pytest.raises(Stopped) as stopped:
        trained(config, at(17, terminate))
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    trained(config, global_seed=1)
    assert_same_run(config.directory, whole)
    assert any("objective/cpc/accuracy_farthest" in row for row in rows(whole))


def test_an_agent_is_copied_with_its_objectives() -> None:
    agent = make("curl+cpc")
    again = make("curl+cpc")
    update(agent)
    again.load_training_state(copy.deepcopy(agent.training_state()))
    ours, theirs = update(agent, 1), update(again, 1)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
