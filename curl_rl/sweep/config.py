"""What a sweep runs and where: a YAML file, flags, or both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from curl_rl.ranges import check_ranges
from curl_rl.runs.errors import UserError
from curl_rl.runs.settings import nearest, read_yaml
from curl_rl.runs.whole_numbers import with_whole_numbers
from curl_rl.sweep.search import Between, OneOf
from curl_rl.sweep.values import spelled, split

On = Literal["local", "ray", "slurm", "local-submitit"]
"""Where jobs run: a pool on this machine, a Ray cluster, a Slurm queue, submitit's processes on this machine."""


@dataclass(frozen=True)
class SweepConfig:
    """A sweep. In the YAML file its fields have the names of the flags."""

    env: tuple[str, ...] = ()
    """Tasks."""
    preset: tuple[str, ...] = ("curl",)
    """Presets."""
    seeds: tuple[int, ...] = (1,)
    """Seeds."""
    set: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Values of settings, as a run's command line takes them; every combination is trained."""
    search: Mapping[str, Between | OneOf] = field(default_factory=dict)
    """Ranges of settings to search by trials, in place of trying all."""
    trials: int = 20
    """Trials of the search."""
    folder: Path = Path("sweeps/default")
    """Where runs, logs and sweep.csv go."""
    on: On = "local"
    """Where jobs run."""
    jobs: int | None = None
    """Jobs at the same time; None: as many as fit."""
    gpus_per_job: float | None = None
    """GPUs of a job, or the fraction of one; None: one, where there are any."""
    cpus_per_job: int | None = None
    """Cores of a job; None: an even share of this machine's, or one on a cluster."""
    slurm: Mapping[str, str] = field(default_factory=dict)
    """Options of sbatch."""

    def __post_init__(self) -> None:
        check_ranges(self)


def read_sweep(path: Path | None, flags: Mapping[str, Any]) -> SweepConfig:
    """The sweep of a YAML file and of flags, which override it entry by entry.

    Args:
        path: the file, if any. The folder is ``sweeps/<name of the file>`` unless it is set.
        flags: by name; those that are None were not given. ``set``, ``search`` and ``slurm`` are lists of texts,
            ``name=value``.

    Raises:
        UserError: the file cannot be read, or an entry is unknown or invalid.
    """
    known = [one.name for one in fields(SweepConfig)]
    config = SweepConfig()
    if path is not None:
        config = replace(config, folder=Path("sweeps") / path.stem)
    for source, entries in ((path, {} if path is None else read_yaml(path)), (None, flags)):
        for name, value in entries.items():
            if name not in known:
                raise UserError(f"{source}: unknown entry {name}{nearest(str(name), known)}")
            if value is not None:
                config = replace(config, **{name: _READERS[name](value)})
    if not config.env:
        raise UserError("env must name at least one task, such as --env cartpole-swingup walker-walk")
    both = [name for name in config.search if name in config.set]
    if both:
        raise UserError(f"{both[0]} must be in set or in search, got both")
    return config


def _texts(name: str) -> Callable[[Any], tuple[str, ...]]:
    def read(value: Any) -> tuple[str, ...]:
        texts = tuple(str(one) for one in (value if isinstance(value, (list, tuple)) else [value]))
        if not texts or not all(texts):
            raise UserError(f"{name} must have at least one value")
        return tuple(dict.fromkeys(texts))

    return read


def _whole(name: str, least: int = 1) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        number = with_whole_numbers(value)
        if isinstance(number, str) and number.isdecimal():
            number = int(number)
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise UserError(f"{name} must be a whole number of at least {least}, got {value}")
        return number

    return read


def _seeds(value: Any) -> tuple[int, ...]:
    one = _whole("seeds", least=0)
    seeds = tuple(dict.fromkeys(one(seed) for seed in (value if isinstance(value, (list, tuple)) else [value])))
    if not seeds:
        raise UserError("seeds must have at least one value")
    return seeds


def _gpus(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not (0 < number < 1 or (number >= 1 and number.is_integer())):
        raise UserError(f"gpus_per_job must be a whole number of GPUs or a fraction of one, such as 0.25, got {value}")
    return number


def _on(value: Any) -> On:
    if value not in get_args(On):
        raise UserError(f"on must be {', '.join(get_args(On))}, got {value}{nearest(str(value), list(get_args(On)))}")
    return cast(On, value)


def _entries(name: str, value: Any) -> dict[str, Any]:
    """Entries by name, from YAML or from texts ``name=value``."""
    if isinstance(value, Mapping):
        return {str(key): one for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        pairs = [str(text).partition("=") for text in value]
        wrong = [key for key, sign, one in pairs if not (key and sign and one)]
        if not wrong:
            return {key: one for key, _, one in pairs}
        raise UserError(f"{name} must be NAME=VALUE, got {wrong[0] or '='}")
    raise UserError(f"{name} must hold settings by name, got {value}")


def _set(value: Any) -> dict[str, tuple[str, ...]]:
    from_text = not isinstance(value, Mapping)
    found = {}
    for name, one in _entries("set", value).items():
        values = split(one) if from_text else one if isinstance(one, list) else [one]
        found[name] = tuple(dict.fromkeys(spelled(part) for part in values))
        if not found[name] or not all(found[name]):
            raise UserError(f"set: {name} must have at least one value")
    return found


def _search(value: Any) -> dict[str, Between | OneOf]:
    return {name: _range(name, one) for name, one in _entries("search", value).items()}


def _range(name: str, value: Any) -> Between | OneOf:
    """A range: ``{low: 1e-4, high: 1e-2, log: true}`` or a list; as a text ``1e-4..1e-2:log`` or ``curl,none``."""
    form = f"search: {name} must be LOW..HIGH, LOW..HIGH:log or a list of values"
    if isinstance(value, str) and ".." in value:
        bounds, _, scale = value.partition(":")
        ends = bounds.partition("..")
        if scale not in ("", "log"):
            raise UserError(f"{form}, got {value}")
        value = {"low": ends[0], "high": ends[2], "log": scale == "log"}
    if isinstance(value, Mapping):
        if not {"low", "high"} <= value.keys() <= {"low", "high", "log"} or not isinstance(
            value.get("log", False), bool
        ):
            raise UserError(f"{form}, got {dict(value)}")
        low, high = _bound(value["low"], form), _bound(value["high"], form)
        if not low < high or (value.get("log") and low <= 0):
            above = ", and above 0 with log" if value.get("log") else ""
            raise UserError(f"search: the bounds of {name} must rise{above}, got {low} and {high}")
        return Between(low, high, value.get("log", False))
    values = split(value) if isinstance(value, str) else value
    if not isinstance(values, list) or len(values) < 2:
        raise UserError(f"{form} (at least two), got {value}")
    return OneOf(tuple(dict.fromkeys(spelled(one) for one in values)))


def _bound(value: Any, form: str) -> float:
    number = with_whole_numbers(value)
    try:
        return int(number) if isinstance(number, int) or str(number).lstrip("-").isdecimal() else float(number)
    except (TypeError, ValueError):
        raise UserError(f"{form}, got {value}") from None


_READERS: dict[str, Callable[[Any], Any]] = {
    "env": _texts("env"),
    "preset": _texts("preset"),
    "seeds": _seeds,
    "set": _set,
    "search": _search,
    "trials": _whole("trials"),
    "folder": lambda value: Path(str(value)).expanduser(),
    "on": _on,
    "jobs": _whole("jobs"),
    "gpus_per_job": _gpus,
    "cpus_per_job": _whole("cpus_per_job"),
    "slurm": lambda value: {name: str(one) for name, one in _entries("slurm", value).items()},
}
