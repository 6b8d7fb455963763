"""Reports in one screen whether this machine is ready for training, and how to fix any problems.

    python scripts/doctor.py        (or: make doctor)

Each line has a mark: `ok`; `warn`, if training works but worse than it could; `FAIL`, if it cannot work. The exit code
is 0 if this machine can train and 1 if something necessary is missing. Checks that may crash or hang, such as importing
torch or rendering a frame, run in separate processes, so that a broken library affects only its own line.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import multiprocessing
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from curl_rl.installation import IS_CLONE, ROOT
from curl_rl.runs.spelling import in_this_spelling

# This process imports no torch, which may be broken.
PACKAGE = "curl_rl"
_PIP_INSTALL = shlex.join([sys.executable, "-m", "pip", "install"])
if IS_CLONE:
    INSTALL = f"{_PIP_INSTALL} -e {shlex.quote(str(ROOT))}"
    INSTALL_DM_CONTROL = shlex.join([sys.executable, f"{ROOT}/scripts/install_dm_control.py"])
    SET_UP = f"cd {shlex.quote(str(ROOT))} && make setup, then .venv/bin/python scripts/doctor.py"
    SET_UP_AFRESH = "rm -rf .venv && make setup"
    INSTALL_OPENGL = "make setup installs the OpenGL libraries"
else:
    INSTALL = f"{_PIP_INSTALL} --upgrade {PACKAGE}"
    INSTALL_DM_CONTROL = shlex.join([sys.executable, "-m", PACKAGE, "install-dm-control"])
    SET_UP = INSTALL
    SET_UP_AFRESH = f"{_PIP_INSTALL} --force-reinstall torch"
    INSTALL_OPENGL = "apt-get install libegl1 libopengl0 libgl1-mesa-dri installs the OpenGL libraries"
PATIENCE = 90.0  # timeout of a probe in seconds: importing torch from a cold network disk takes tens of seconds

# The needs of a run at the paper's settings: 105,000 frames of 3×100×100 bytes in the replay, once in memory and once
# in the checkpoints' segments, plus the networks, the libraries and, on disk, two checkpoints.
REPLAY_BYTES = 105_000 * 3 * 100 * 100
MEMORY_BYTES = REPLAY_BYTES + 2_000_000_000
DISK_BYTES = REPLAY_BYTES + 500_000_000
# With a replay on disk, or a short one of small frames, this much still trains.
LEAST_BYTES = 2_000_000_000

FRAMES_TIMED = 20


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    mark: Literal["ok", "warn", "FAIL"]
    what: str
    value: str
    remedy: str = ""
    """How to fix it; empty if nothing is wrong."""

    def __str__(self) -> str:
        line = f"{self.mark:<5} {self.what:<12} {self.value}"
        return f"{line}\n      -> {self.remedy}" if self.remedy else line


class ProbeFailed(Exception):
    """The failure of a probe in its process, in one line."""


def in_own_process(probe: Callable[..., Any], *arguments: object, timeout: float = PATIENCE) -> Any:
    """Returns `probe(*arguments)`, run in a new process; raises ProbeFailed if it raises, dies or takes too long."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, probe, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(timeout):
            raise ProbeFailed(f"no answer within {timeout:.0f} s")
        worked, answer = ours.recv()
    except EOFError:
        process.join(timeout)
        raise ProbeFailed(f"the process died (exit code {process.exitcode})") from None
    finally:
        process.kill()
    if not worked:
        raise ProbeFailed(answer)
    return answer


def _answer(connection: Connection, probe: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    """Runs the probe in its process, and discards all output of libraries."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        outcome = (True, probe(*arguments))
    except BaseException as error:  # includes sys.exit by a library on import
        outcome = (False, one_line(error))
    connection.send(outcome)


def one_line(error: BaseException) -> str:
    """The error's class and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def gigabytes(count: float) -> str:
    """Formats `count` bytes."""
    return f"{count / 1e9:.1f} GB"


# ---- Python and the packages


def check_python() -> Iterator[Finding]:
    """Checks the version of Python, and that the package is installed in it."""
    value = f"{platform.python_version()}, {sys.executable}"
    try:
        from packaging.specifiers import SpecifierSet

        wanted = importlib.metadata.metadata(PACKAGE)["Requires-Python"]
    except ModuleNotFoundError:  # including PackageNotFoundError; packaging may be missing as well
        # The scripts find the clone's code anyway; only the declared version ranges are unavailable.
        yield Finding("warn", "Python", f"{value}: {PACKAGE} is not installed for it", SET_UP)
        return
    if platform.python_version() not in SpecifierSet(wanted, prereleases=True):
        yield Finding("FAIL", "Python", f"{value}: {PACKAGE} requires {wanted}", f"install one, then {SET_UP_AFRESH}")
    else:
        yield Finding("ok", "Python", value)


def check_packages() -> Iterator[Finding]:
    """Checks the installed versions against the ranges that the package declares."""
    from packaging.requirements import Requirement

    fitting = 0
    for requirement in map(Requirement, importlib.metadata.requires(PACKAGE) or []):
        if requirement.marker and "extra" in str(requirement.marker):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            text = f"{requirement.name} is not installed"
            if requirement.marker and not requirement.marker.evaluate():  # dm-control on a Python too new for labmaze
                yield Finding("warn", "packages", f"{text}: no DeepMind Control", INSTALL_DM_CONTROL)
            else:
                yield Finding("FAIL", "packages", text, INSTALL)
            continue
        if requirement.specifier.contains(version, prereleases=True):
            fitting += 1
        else:
            text = f"{requirement.name} {version} is outside {requirement.specifier}"
            yield Finding("warn", "packages", text, INSTALL)
    yield Finding("ok", "packages", f"{fitting} are within the ranges that {PACKAGE} declares")


def probe_tensorboard() -> str:
    """Imports the logger's dependencies, and returns TensorBoard's version."""
    import tensorboard
    from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: F401
    from tensorboard.summary.writer.event_file_writer import EventFileWriter  # noqa: F401

    return str(tensorboard.__version__)


def check_tensorboard() -> Iterator[Finding]:
    """Checks that TensorBoard events can be written: old releases fail on import with a new setuptools."""
    try:
        yield Finding("ok", "TensorBoard", in_own_process(probe_tensorboard))
    except ProbeFailed as error:
        yield Finding("FAIL", "TensorBoard", str(error), INSTALL)


# ---- torch, GPU, CPU


def probe_torch() -> dict[str, Any]:
    """Imports torch and multiplies two matrices on each device."""
    import torch

    devices = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        square = torch.ones(64, 64, device=f"cuda:{index}")
        assert float((square @ square)[0, 0]) == 64.0, f"cuda:{index} multiplies wrongly"
        devices.append((properties.name, properties.total_memory, properties.major))
    square = torch.ones(64, 64)
    assert float((square @ square)[0, 0]) == 64.0, "the CPU multiplies wrongly"
    return {
        "version": str(torch.__version__),
        "cuda": torch.version.cuda,
        "devices": devices,
        "threads": torch.get_num_threads(),
    }


def driver_version() -> str | None:
    """The NVIDIA driver's version, from nvidia-smi; None without a GPU."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return answer[0] if answer else None


def check_torch() -> Iterator[Finding]:
    """Checks torch's version and build, and the GPUs it can use."""
    driver = driver_version()
    try:
        torch = in_own_process(probe_torch)
    except ProbeFailed as error:
        yield Finding("FAIL", "torch", str(error), SET_UP_AFRESH)
        return
    build = f"built for CUDA {torch['cuda']}" if torch["cuda"] else "built for the CPU"
    yield Finding("ok", "torch", f"{torch['version']}, {build}, {torch['threads']} threads")
    for name, memory, major in torch["devices"]:
        value = f"{name}, {gigabytes(memory)}, driver {driver or 'unknown'}"
        # Tensor cores support bfloat16 from compute capability 8.0 (Ampere); older GPUs emulate it.
        if major >= 8:
            yield Finding("ok", "GPU", f"{value}, bfloat16")
        else:
            yield Finding("warn", "GPU", f"{value}, no bfloat16", "--agent.precision float32 is faster on it")
    if torch["devices"]:
        return
    if driver is None:
        yield Finding("ok", "GPU", "none: training runs on the CPU")
    elif torch["cuda"] is None:
        yield Finding("warn", "GPU", f"driver {driver}, but this torch is built for the CPU", SET_UP_AFRESH)
    else:
        remedy = "update the driver, or install torch for an older CUDA: see PyTorch's install page"
        yield Finding("warn", "GPU", f"driver {driver} is not usable with CUDA {torch['cuda']}", remedy)


def quota_of_cores(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """CPU quota of the control group in cores (of a container started with --cpus, say); None without a limit."""
    try:
        allowed, period = path.read_text().split()
        return int(allowed) / int(period)
    except (OSError, ValueError):  # no such file, or the word "max"
        return None


def probe_bfloat16() -> bool:
    """Whether precision auto computes in bfloat16 on this CPU."""
    import torch

    from curl_rl.runs.compute import resolve_precision

    return resolve_precision("auto", torch.device("cpu")) == "bfloat16"


def check_cpu() -> Iterator[Finding]:
    """Checks the cores available to this process, and their support for bfloat16."""
    usable, quota = len(os.sched_getaffinity(0)), quota_of_cores()
    value = f"{usable} of {os.cpu_count()} cores"
    fast = sorted({"avx512_bf16", "amx_bf16", "bf16"} & set(Path("/proc/cpuinfo").read_text().split()))
    if quota is not None and quota < usable:
        text = f"{value}, but a container's quota allows only {quota:g}"
        yield Finding("warn", "CPU", text, f"export OMP_NUM_THREADS={max(1, round(quota))}: more threads only wait")
    if fast:
        try:
            note = "" if in_own_process(probe_bfloat16) else ", slower than float32: precision auto takes float32"
        except ProbeFailed:  # check_torch says why
            note = ""
        yield Finding("ok", "CPU", f"{value}, bfloat16 ({', '.join(fast)}){note}")
    else:
        text = f"{value}, no bfloat16: it is emulated, and slow"
        yield Finding("warn", "CPU", text, "keep --agent.precision at float32 or auto")


# ---- rendering


def probe_rendering(quality: Literal["faithful", "fast"]) -> tuple[str, float]:
    """Returns the OpenGL backend and device, and the milliseconds per frame of cheetah-run."""
    envs = importlib.import_module("curl_rl.envs")
    choose_backend = importlib.import_module("curl_rl.envs.rendering").choose_backend

    backend = choose_backend()
    env = envs.make("cheetah-run", size=100, quality=quality)
    env.reset(seed=0)
    still = 0 * env.action_space.sample()
    for _ in range(3):
        env.step(still)
    began = time.perf_counter()
    for _ in range(FRAMES_TIMED):
        env.step(still)
    milliseconds = (time.perf_counter() - began) / FRAMES_TIMED * 1e3
    env.close()
    return f"{backend.name}, {backend.device}", milliseconds


def check_rendering() -> Iterator[Finding]:
    """Checks that MuJoCo can render without a display, and reports the device and its speed."""
    times = []
    # Each in its own process: two live renderers in one process distort the timings.
    for quality in ("faithful", "fast"):
        try:
            drawer, milliseconds = in_own_process(probe_rendering, quality)
        except ProbeFailed as error:
            remedy = f"{INSTALL_OPENGL}; {INSTALL} repairs the packages"
            if importlib.util.find_spec("dm_control") is None:
                remedy = INSTALL_DM_CONTROL
            yield Finding("FAIL", "rendering", in_this_spelling(str(error)), remedy)
            return
        times.append(f"{milliseconds:.1f} ms {quality}")
    yield Finding("ok", "rendering", drawer)
    yield Finding("ok", "frame", f"{', '.join(times)} (a step of cheetah-run at 100×100, simulated and rendered)")


# ---- memory and disk


def probe_memory() -> int:
    """Bytes of memory available to the replay."""
    from curl_rl.runs.storage import available_memory

    return available_memory()


def judge_room(what: str, free: int, wanted: int, remedy: str) -> Finding:
    """Compares `free` bytes with `wanted`, the needs of a run at the paper's settings."""
    value = f"{gigabytes(free)} free; a run at the paper's settings needs {gigabytes(wanted)}"
    if free >= wanted:
        return Finding("ok", what, value)
    if free >= LEAST_BYTES:
        return Finding("warn", what, value, remedy)
    return Finding("FAIL", what, value, f"free at least {gigabytes(LEAST_BYTES)}")


def check_memory() -> Iterator[Finding]:
    """Checks the free memory against the needs of a run."""
    remedy = "the preset cpu needs less; a replay that does not fit into memory is stored on disk"
    yield judge_room("memory", in_own_process(probe_memory), MEMORY_BYTES, remedy)


def check_disk() -> Iterator[Finding]:
    """Checks the free space on the disk of runs/ against the needs of a run."""
    remedy = "the preset cpu needs less; or train into a directory on a larger disk"
    yield judge_room("disk", shutil.disk_usage(Path.cwd()).free, DISK_BYTES, remedy)


# ---- the report

CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "Python": check_python,
    "packages": check_packages,
    "torch": check_torch,
    "CPU": check_cpu,
    "rendering": check_rendering,
    "TensorBoard": check_tensorboard,
    "memory": check_memory,
    "disk": check_disk,
}


def main(argv: Sequence[str]) -> int:
    """Prints the report line by line, and returns the exit code."""
    description = in_this_spelling(__doc__ or "")
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `doctor.py | head` ends quietly
    failed = []
    for name, check in CHECKS.items():
        try:
            for finding in check():
                print(finding, flush=True)
                if finding.mark == "FAIL":
                    failed.append(finding.what)
        except Exception as error:
            # The check itself failed, which does not imply that training would.
            print(Finding("warn", name, f"could not be checked ({one_line(error)})", SET_UP), flush=True)
    print(f"\nThis machine cannot train yet: {', '.join(failed)}." if failed else "\nThis machine can train.")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
