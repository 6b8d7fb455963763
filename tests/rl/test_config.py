"""The command line and its layers, against the CURL paper's Table 3 and messages written by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from curl_rl.rl.config import (
    PRESETS,
    SCHEMA,
    CheckpointConfig,
    ComputeConfig,
    EvaluationConfig,
    LogConfig,
    ReplayConfig,
    RunConfig,
    TrainingConfig,
    UserError,
    changed_fields,
    load_preset,
    parse_command_line,
    read_config,
    save_config,
    to_dict,
)

# CURL (arXiv 2004.04136), Table 3; actor and target frequency, kernel and strides are the released code's.
TABLE_3 = {
    "environment": {"size": 100, "stack": 3},
    "agent": {
        "batch_size": 512,
        "crop": 84,
        "encoder": {"filters": 32, "strides": [2, 1, 1, 1], "latent": 50},
        "hidden": 1024,
        "actor_lr": 1e-3,
        "critic_lr": 1e-3,
        "encoder_lr": 1e-3,
        "actor_beta": 0.9,
        "critic_beta": 0.9,
        "temperature_lr": 1e-4,
        "temperature_beta": 0.5,
        "initial_temperature": 0.1,
        "discount": 0.99,
        "n_step": 1,
        "critic_tau": 0.01,
        "encoder_tau": 0.05,
        "actor_every": 2,
        "target_every": 2,
    },
    "replay": {"capacity": 100_000},
    "training": {"random_steps": 1000, "update_every": 1},
    "evaluation": {"episodes": 10},
}


def parse(*argv: str) -> RunConfig:
    return parse_command_line(list(argv), program="train_agent.py", description="")[0]


def mistake(*argv: str) -> str:
    with pytest.raises(UserError) as error:
        parse(*argv)
    line = str(error.value)
    assert "\n" not in line
    return line


def lacking(part: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """The settings of ``part`` that differ in ``whole``."""
    missing = {}
    for key, value in part.items():
        if isinstance(value, dict):
            if inner := lacking(value, whole[key]):
                missing[key] = inner
        elif whole[key] != value:
            missing[key] = whole[key]
    return missing


# ---- presets and the table of tasks


@pytest.mark.parametrize("preset", ["curl", "official", "sac"])
def test_presets_hold_the_numbers_of_table_3(preset: str) -> None:
    assert lacking(TABLE_3, to_dict(load_preset(preset, "walker-walk"))) == {}


def test_the_table_is_the_default_of_every_field_as_well() -> None:
    assert lacking(TABLE_3, to_dict(RunConfig())) == {}


@pytest.mark.parametrize(
    ("preset", "differences"),
    [
        (
            "official",
            {
                "agent.every_crop_offset": (True, False),
                "agent.objective_optimizers": (
                    [["encoder", "objective"]],
                    [["encoder"], ["encoder", "objective"]],
                ),
                "objectives.curl.similarity_init": ("identity", "uniform"),
            },
        ),
        ("sac", {"agent.objective": ("curl", "none")}),
    ],
)
def test_presets_differ_from_curl_only_in_the_named_fields(
    preset: str, differences: dict[str, tuple[object, object]]
) -> None:
    curl = load_preset("curl", "walker-walk")
    other = load_preset(preset, "walker-walk")
    assert changed_fields(curl, other) == differences | {"preset": ("curl", preset)}
    assert other.frames == curl.frames
    of_other_methods = [{**to_dict(config.objectives), "curl": None} for config in (curl, other)]
    assert of_other_methods[0] == of_other_methods[1]


@pytest.mark.parametrize(
    ("task", "repeat"),
    [
        ("cartpole-swingup", 8),
        ("walker-walk", 2),
        ("finger-spin", 2),
        ("cheetah-run", 4),
        ("reacher-easy", 4),
        ("ball_in_cup-catch", 4),
        ("tiny-reach", 1),
        ("gym:CarRacing-v3", 1),
    ],
)
def test_action_repeat_of_each_task(task: str, repeat: int) -> None:
    for preset in ("curl", "official", "sac", "cpu"):
        assert load_preset(preset, task).environment.action_repeat == repeat


@pytest.mark.parametrize("preset", ["curl", "official", "sac", "cpu"])
def test_cheetahs_learning_rate_applies_only_to_the_papers_presets(preset: str) -> None:
    def rates(task: str) -> set[float]:
        agent = load_preset(preset, task).agent
        return {agent.actor_lr, agent.critic_lr, agent.encoder_lr}

    if preset == "cpu":
        assert rates("cheetah-run") == rates("walker-walk")
    else:
        assert (rates("cheetah-run"), rates("walker-walk")) == ({2e-4}, {1e-3})
    assert load_preset(preset, "cheetah-run").agent.temperature_lr == 1e-4


def test_every_file_of_presets_can_be_loaded() -> None:
    names = {path.stem for path in PRESETS.glob("*.yaml")} - {"tasks"}
    assert names >= {"curl", "official", "sac", "cpu"}
    for name in names:
        assert load_preset(name, "cheetah-run").preset == name


# ---- precedence


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text("seed: 7\nagent: {actor_lr: 5e-4, hidden: 64}\nenvironment: {action_repeat: 3}\n")
    return path


def test_file_beats_table_beats_preset_and_flags_beat_all(settings: Path) -> None:
    config = parse("--env", "cheetah-run", "--config", str(settings), "--agent.hidden", "32")
    assert config.agent.discount == 0.99  # of the preset
    assert config.agent.critic_lr == 2e-4  # of the table
    assert config.agent.actor_lr == 5e-4  # of the file, against the table
    assert config.environment.action_repeat == 3  # of the file, against the table
    assert config.seed == 7  # of the file, against the default
    assert config.agent.hidden == 32  # of the flag, against the file


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("spelling", ["--config {}", "--config={}"])
def test_flags_beat_the_file_wherever_it_stands(settings: Path, place: int, spelling: str) -> None:
    argv = ["--seed=9", "--agent.hidden=32", "--frames=5000"]
    argv[place:place] = spelling.format(settings).split()
    config = parse(*argv)
    assert (config.seed, config.agent.hidden, config.frames, config.agent.actor_lr) == (9, 32, 5000, 5e-4)


def test_the_file_may_name_task_and_preset(settings: Path) -> None:
    settings.write_text("preset: official\nenv: cartpole-swingup\n")
    config = parse("--config", str(settings))
    assert (config.preset, config.env, config.environment.action_repeat) == ("official", "cartpole-swingup", 8)
    assert config.objectives.curl.similarity_init == "uniform"
    config = parse("--env", "finger-spin", "--config", str(settings), "--preset", "sac")
    assert (config.preset, config.env, config.environment.action_repeat) == ("sac", "finger-spin", 2)
    assert config.objectives.curl.similarity_init == "identity"


def test_both_spellings_of_a_flag() -> None:
    assert parse("--env=walker-walk", "--preset=sac") == parse("--env", "walker-walk", "--preset", "sac")
    assert parse("--env=walker-walk").environment.action_repeat == 2


def test_without_anything_it_is_curl_on_cheetah() -> None:
    assert parse() == load_preset("curl", "cheetah-run")


def test_values_of_every_kind() -> None:
    line = "--agent.actor_lr 1e-3 --agent.detach_encoder true --agent.encoder.strides [2,2] --agent.objective none"
    config = parse(*line.split(), "--run", "here/it is", "--agent.precision=auto", "--evaluation.video", "false")
    assert config.agent.actor_lr == 1e-3
    assert config.agent.detach_encoder is True
    assert config.agent.encoder.strides == (2, 2)
    assert config.agent.objective == "none"
    assert config.run == Path("here/it is")
    assert config.evaluation.video is False


def test_the_directory_follows_from_task_preset_and_seed() -> None:
    assert parse("--seed", "5").directory == Path("runs/cheetah-run/curl/seed5")
    assert parse("--env", "gym:a/B-v1").directory == Path("runs/gym_a_B-v1/curl/seed1")
    assert parse("--run", "elsewhere").directory == Path("elsewhere")


def test_fresh_is_returned_separately() -> None:
    assert parse_command_line(["--fresh"], program="p", description="")[1] is True
    assert parse_command_line([], program="p", description="")[1] is False


# ---- printing, saving, reading


def test_print_config_prints_everything_and_is_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ("--env", "finger-spin", "--preset", "cpu", "--agent.n_step", "5", "--run", "x")
    with pytest.raises(SystemExit) as ended:
        parse(*line, "--print_config")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed) == to_dict(parse(*line))
    assert "action_repeat: 2" in printed
    (tmp_path / "printed.yaml").write_text(printed)
    assert parse("--config", str(tmp_path / "printed.yaml")) == parse(*line)


def test_a_saved_configuration_can_be_read_back_and_passed_as_config(tmp_path: Path) -> None:
    config = dataclasses.replace(
        load_preset("official", "cheetah-run"), seed=11, run=Path("some/where"), device="cuda:1"
    )
    save_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config
    assert parse("--config", str(tmp_path / "config.yaml")) == config


def test_help_shows_the_fields_docstrings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("--help")
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for flag, documentation in {
        "--agent.batch_size": "Transitions in one update.",
        "--environment.action_repeat": "Environment steps per action.",
        "--frames": "Budget in environment frames",
        "--replay.capacity": "Transitions (agent steps) to keep",
        "--objectives.curl.similarity_init": "",
        "--config": "overrides the preset",
        "--fresh": "set aside an earlier one in the directory",
        "--print_config": "print all settings as YAML",
    }.items():
        assert flag in text
        assert documentation in text


# ---- mistakes


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("--preset crl", "unknown preset crl; presets are cpu, curl, official, sac; did you mean curl?"),
        ("--agent.batchsize 3", "unrecognized arguments: --agent.batchsize 3; did you mean --agent.batch_size?"),
        ("--agent.batchsize=3", "unrecognized arguments: --agent.batchsize=3; did you mean --agent.batch_size?"),
        ("--frame 3", "unrecognized arguments: --frame 3; did you mean --frames?"),
        ("stray", "unrecognized arguments: stray"),
        ("--frames", "argument --frames: expected one argument"),
        ("--config", "argument --config: expected one argument"),
        ("--frames 0", "frames must be at least 1 and have at most ten digits, got 0"),
        ("--frames 10000000000", "frames must be at least 1 and have at most ten digits, got 10000000000"),
        ("--frames many", "frames must be a whole number, got many"),
        ("--frames 1.5", "frames must be a whole number, got 1.5"),
        ("--frames null", "frames must be a whole number, got None"),
        ("--seed -1", "seed must be 0 or more and below 2**32, got -1"),
        ("--seed 4294967296", "seed must be 0 or more and below 2**32, got 4294967296"),
        ("--agent.discount nan", "agent.discount must be a finite number, got nan"),
        ("--agent.discount 1.5", "agent.discount must lie in [0, 1], got 1.5"),
        ("--agent.detach_encoder maybe", "agent.detach_encoder must be true or false, got maybe"),
        ("--agent.encoder.strides 2", "agent.encoder.strides must be a list, such as [2, 1, 1, 1], got 2"),
        ("--agent.precision half", "agent.precision must be float32 or bfloat16 or auto, got half"),
        ("--environment.quality good", "environment.quality must be faithful or fast, got good"),
        (
            "--environment.proprioception position",
            "environment.proprioception must be all or a list, such as [one, two], got position",
        ),
        ("--device gpu", "device must be auto, cpu, cuda or cuda:<n>, got 'gpu'"),
        ("--agent.crop 101", "agent.crop 101 is larger than environment.size 100: the crop is cut out of the rendered "
         "frame"),
        ("--replay.capacity 511", "replay.capacity 511 is smaller than agent.batch_size 512"),
        ("--environment.size 0", "environment.size must be at least 1, got 0"),
        ("--training.random_steps 0", "training.random_steps must be at least 1, got 0"),
        (
            "--training.overlap true --training.environments 4 --training.random_steps 3",
            "training.random_steps must be at least training.environments, 4, with training.overlap, got 3: the first "
            "updates run before the first steps arrive",
        ),
        ("--evaluation.every -1", "evaluation.every must be 0 (never) or more, got -1"),
        ("--evaluation.episodes 0", "evaluation.episodes must be at least 1, got 0"),
        ("--checkpoint.keep 0", "checkpoint.keep must be at least 1, got 0"),
        ("--log.every 0", "log.every must be at least 1, got 0"),
        ("--log.images_every -1", "log.images_every must be 0 (never) or more, got -1"),
        ("--compute.threads -1", "compute.threads must be from 0 (automatic) to 4096, got -1"),
        ("--compute.threads 100000000000", "compute.threads must be from 0 (automatic) to 4096, got 100000000000"),
        ("--config /nowhere.yaml", "cannot read /nowhere.yaml: No such file or directory"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_line_is_one_line(argv: str, line: str) -> None:
    assert mistake(*argv.split()) == line


@pytest.mark.parametrize(
    ("content", "end"),
    [
        ("agent: {batchsize: 3}", ": unknown setting agent.batchsize; did you mean batch_size?"),
        ("nonsense: 3", ": unknown setting nonsense"),
        ("agent: 3", ": agent must hold settings by name, got 3"),
        ("frames:", ": frames has no value"),
        ("3: 4", ": unknown setting 3"),
        ("- frames", " must hold settings by name, such as `frames: 100000`"),
        ("", " must hold settings by name, such as `frames: 100000`"),
        ("frames: many", ": frames must be a whole number, got many"),
        ("agent: {crop: 0}", ": agent.crop must be at least 1, got 0"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_the_file(tmp_path: Path, content: str, end: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        read_config(path)
    assert str(error.value) == f"{path}{end}"
    assert mistake("--config", str(path)).endswith(end.removeprefix(": "))


@pytest.mark.parametrize("content", [b"frames: [", b"\x00", b"\xff\xfe\x00\xd8", b"a: !!python/object:os.system x"])
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    assert mistake("--config", str(path)).startswith(f"{path} is not valid YAML: ")
    with pytest.raises(UserError, match="is not valid YAML") as error:
        read_config(path)
    assert "\n" not in str(error.value)


# ---- which changes a resumed run may make


def test_what_may_change_is_a_place_a_time_or_an_amount() -> None:
    old = RunConfig()
    allowed = dataclasses.replace(
        old,
        frames=9,
        device="cpu",
        compute=ComputeConfig(threads=3),
        log=LogConfig(every=5),
        run=Path("moved"),
        evaluation=EvaluationConfig(every=7, video=False),
        checkpoint=CheckpointConfig(every=8, keep=1),
        replay=ReplayConfig(storage="disk"),
    )
    assert changed_fields(old, allowed) == {}
    assert SCHEMA.allowed_changes(old, allowed).keys() == {
        *("frames", "device", "compute.threads", "log.every", "run", "evaluation.every", "evaluation.video"),
        *("checkpoint.every", "checkpoint.keep", "replay.storage"),
    }
    more = EvaluationConfig(every=7, episodes=11)
    assert changed_fields(old, dataclasses.replace(old, evaluation=more)) == {"evaluation.episodes": (10, 11)}
    forbidden = dataclasses.replace(
        old, seed=2, replay=ReplayConfig(capacity=600), training=TrainingConfig(update_every=2), env="walker-run"
    )
    assert changed_fields(old, forbidden) == {
        "env": ("cheetah-run", "walker-run"),
        "replay.capacity": (100_000, 600),
        "seed": (1, 2),
        "training.update_every": (1, 2),
    }


def test_settings_of_methods_that_a_run_does_not_use_are_no_part_of_it() -> None:
    """A preset gains settings with each new method, and earlier runs still resume."""
    old = load_preset("cpu", "cheetah-run")
    moco = dataclasses.replace(old.objectives.moco, queue=old.objectives.moco.queue + 1)
    new = dataclasses.replace(old, objectives=dataclasses.replace(old.objectives, moco=moco))
    assert changed_fields(old, new) == SCHEMA.allowed_changes(old, new) == {}
    old, new = (dataclasses.replace(run, agent=dataclasses.replace(run.agent, objective="moco")) for run in (old, new))
    assert changed_fields(old, new).keys() == {"objectives.moco.queue"}


def test_objective_without_a_name_lists_the_methods_and_what_an_agent_cannot_offer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as left:
        parse_command_line(["--agent.objective"], program="p", description="")
    assert left.value.code == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert {"curl", "supcon", "none"} <= set(lines)
    assert lines["supcon"].endswith("Not here: needs labels.")
    assert lines["pcl"].endswith("Not here: needs epochs and indices.")
    assert "Not here" not in lines["curl"]
