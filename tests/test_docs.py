"""The programs in docs/ run, page by page in a fresh namespace and directory, and everything the pages name exists."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import re
import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from curl_rl import auxiliary
from curl_rl.artifacts.encoder_file import save_encoder
from curl_rl.encoders import PixelEncoder
from curl_rl.encoders.resnet import ResNetConfig
from curl_rl.objectives import DeepClusterConfig, DIMConfig, NNCLRConfig, ObjectiveConfigs, PCLConfig, registry
from curl_rl.pretraining.config import BackboneConfig, LogConfig, OptimizerConfig
from curl_rl.rl.config import load_preset
from curl_rl.runs.logger import read_metrics
from curl_rl.text.config import load_preset as load_text_preset
from curl_rl.text.data.tables import captions_text
from curl_rl.text.pair_config import load_preset as load_pair_preset
from curl_rl.text.pair_config import methods_of_pairs
from curl_rl.text.pair_pretraining import pretrain_pairs
from curl_rl.text.pretraining import pretrain as pretrain_on_texts
from curl_rl.vision.config import ComputeConfig, KNNConfig, VisionConfig
from curl_rl.vision.pretraining import pretrain
from curl_rl.vision.views import AugmentConfig
from helpers.corridor import tiny, trained
from helpers.image_folders import make_classes
from helpers.pages import DOCS, blocks, run

PAGES = [
    "auxiliary_loss.md",
    "curves.md",
    "encoders.md",
    "frames.md",
    "getting_started.md",
    "images.md",
    "integrations.md",
    "report.md",
    "transfer.md",
]
ADDED = "# +"
# Optional libraries that blocks import.
OPTIONAL = ("stable_baselines3", "matplotlib", "tensordict", "onnxruntime", "huggingface_hub")


@pytest.fixture
def directory_with_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "runs" / "tiny-reach" / "cpu" / "seed1"
    directory.mkdir(parents=True)
    # As the README's command leaves it: train_agent.py --env tiny-reach --preset cpu
    config = load_preset("cpu", "tiny-reach")
    shape = (3 * config.environment.stack, config.agent.crop, config.agent.crop)
    assert (shape, config.environment.size) == ((9, 28, 28), 32), "the pages name these sizes"
    encoder = PixelEncoder(shape, config.agent.encoder)
    provenance = {"env": config.env, "preset": config.preset, "seed": config.seed, "frames": config.frames}
    save_encoder(encoder, directory, rendered_size=config.environment.size, provenance=provenance)


@pytest.mark.usefixtures("directory_with_a_run")
@pytest.mark.parametrize("page", PAGES)
def test_blocks_run_in_order(page: str) -> None:
    found = blocks(page)
    assert found
    namespace: dict[str, Any] = {"__name__": "docs"}
    for block in found:
        if "digits" in block:
            pytest.importorskip("sklearn")
        absent = [name for name in OPTIONAL if name in block and importlib.util.find_spec(name) is None]
        if absent:
            pytest.skip(f"{absent[0]} is not installed: this block and those after it are left out")
        run(block, page, namespace)


def test_the_options_of_methods_that_a_page_names_are_there() -> None:
    table = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", (DOCS / "images.md").read_text(), flags=re.MULTILINE)
    of_images = [name for name, method in registry.METHODS.items() if "text" not in method.objective.needs]
    assert sorted(method for method, _ in table) == sorted(of_images)
    for method, options in table:
        named = re.findall(r"`(\w+)`", options)
        assert named
        assert set(named) <= vars(getattr(ObjectiveConfigs(), method)).keys(), method


@pytest.mark.parametrize("page", sorted((DOCS / "methods").glob("*.md")), ids=lambda page: page.stem)
def test_the_page_of_a_method_lists_its_settings_with_their_defaults(page: Path) -> None:
    table = re.findall(
        r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", page.read_text().partition("| setting | default |")[2], re.M
    )
    if not table:
        pytest.skip("no table of settings")
    defaults = vars(getattr(ObjectiveConfigs(), page.stem))
    assert [name for name, _ in table] == list(defaults)
    for name, default in table:
        if defaults[name] is not None:  # otherwise the page states what it follows from
            value = list(defaults[name]) if isinstance(defaults[name], tuple) else defaults[name]
            assert default == str(value).lower(), name


# Options that make a page's commands small enough for a test, by script; later options override earlier ones.
SHORTENED = {
    "pretrain_vision": "--epochs 1 --optimizer.warmup_epochs 0 --encoder.resnet.width 0.0625 --log.projector 0",
    "finetune_vision": "--epochs 2",
    "distill_vision": "--epochs 1",
}


@pytest.mark.slow
@pytest.mark.usefixtures("directory_with_a_run")
def test_the_recipe_of_simclr_v2_runs_as_it_stands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    page = (DOCS / "simclr_v2.md").read_text()
    commands = re.findall(r"^python scripts/(\w+)\.py (.*)$", page, flags=re.MULTILINE)
    assert [name for name, _ in commands] == ["pretrain_vision", "finetune_vision", "distill_vision", "distill_vision"]
    for name, line in commands:
        monkeypatch.setattr("sys.argv", [name, *line.split(), *SHORTENED[name].split(), "--device", "cpu"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(DOCS.parent / "scripts" / f"{name}.py"), run_name="__main__")
        assert ended.value.code == 0
    namespace: dict[str, Any] = {"__name__": "docs"}
    for block in blocks("simclr_v2.md"):
        run(block, "simclr_v2.md", namespace)
    assert namespace["logits"].shape == (2, 10)
    assert namespace["classifier"].classes == tuple("0123456789")
    assert capsys.readouterr().out.count("test accuracy ") == 3


def _examples() -> dict[str, str]:
    """The complete programs that the page about the loss shows or names, by algorithm."""
    (dqn,) = [block for block in blocks("auxiliary_loss.md") if ADDED in block]
    page = (DOCS / "auxiliary_loss.md").read_text()
    programs = {"dqn": dqn}
    for name in ("sac", "ppo"):
        assert f"(../examples/your_{name}_with_curl.py)" in page
        programs[name] = (DOCS.parent / "examples" / f"your_{name}_with_curl.py").read_text()
    return programs


# Flags that make the programs small; the one on the page reads none.
FEW_STEPS = {"sac": ["--steps", "60", "--random_steps", "40"], "ppo": ["--steps", "80", "--rollout", "40"], "dqn": []}


@pytest.mark.parametrize("name", ["sac", "ppo"])
def test_the_page_shows_the_lines_that_add_the_loss_to_an_example(name: str) -> None:
    page = (DOCS / "auxiliary_loss.md").read_text()
    _, _, section = page.partition(f"(../examples/your_{name}_with_curl.py)")
    (shown,) = re.findall(r"^```py\n(.*?)^```$", section.partition("\n## ")[0], flags=re.MULTILINE | re.DOTALL)
    added = [line.strip() for line in _examples()[name].splitlines() if line.endswith(ADDED)]
    assert [line for line in shown.splitlines() if line] == added


@pytest.mark.usefixtures("directory_with_a_run")
@pytest.mark.parametrize("name", ["sac", "ppo", "dqn"])
def test_example_gains_the_loss_in_under_ten_lines(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, list[torch.Tensor]]] = []

    class Recorded(auxiliary.AuxiliaryLoss):
        def __init__(self, encoder: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(encoder, *args, **kwargs)
            made.append((self, copy.deepcopy([*encoder.parameters(), *self.new_parameters()])))

    monkeypatch.setattr("curl_rl.AuxiliaryLoss", Recorded)
    monkeypatch.setattr("sys.argv", [name, *FEW_STEPS[name]])
    program = _examples()[name]
    run(program, "auxiliary_loss.md", {"__name__": "__main__"})
    ((aux, start),) = made
    assert aux.steps > 2
    heads = aux.new_parameters()
    changed = [not torch.equal(a, b) for a, b in zip(start, [*aux.encoder.parameters(), *heads], strict=True)]
    # A bias before batch norm has a negligible gradient; all other parameters have one.
    assert sum(changed) > 0.8 * len(changed)
    assert any(changed[-len(heads) :])

    added = [line for line in program.splitlines() if line.endswith(ADDED)]
    assert 0 < len(added) < 10
    without = "\n".join("" if line.endswith(ADDED) else line for line in program.splitlines())
    assert not re.search(r"\baux\b|AuxiliaryLoss\(", without)
    made.clear()
    run(without, "auxiliary_loss.md", {"__name__": "__main__"})
    assert not made


# ---- what the pages name

ROOT = DOCS.parent
TEXTS = [ROOT / "README.md", ROOT / "results" / "README.md", *sorted(DOCS.rglob("*.md"))]
PRESETS = sorted((ROOT / "configs").rglob("*.yaml"))


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def named_files(page: Path) -> Iterator[str]:
    """Paths of programs, pages and presets that a text names, without addresses on the web."""
    text = re.sub(r"https?://\S+", "", page.read_text())
    yield from re.findall(r"(?<![\w./-])[\w.-]+(?:/[\w.-]+)*/[\w.-]+\.(?:py|md)(?:::\w+)?(?![\w/])", text)
    yield from re.findall(r"(?<![\w./-])configs/[\w/.-]+\.yaml", text)


def missing(page: Path, name: str) -> bool:
    path, _, test = name.partition("::")
    places = [ROOT, page.parent]
    if page.name == "design.md":  # as the page says of its tables
        places.append(ROOT / "curl_rl")
    files = [place / path for place in places if (place / path).is_file()]
    return not files or bool(test and f"def {test}(" not in files[0].read_text())


@pytest.mark.parametrize("page", [*TEXTS, *PRESETS], ids=shown)
def test_every_file_and_test_that_a_text_names_exists(page: Path) -> None:
    assert [name for name in named_files(page) if missing(page, name)] == []


def test_a_file_that_is_not_there_is_found_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`rl/update.py`, `envs/tiny.py`, `docs/none.md`, [x](none/x.md), `tests/test_docs.py::test_none`")
    wrong = ["rl/update.py", "docs/none.md", "none/x.md", "tests/test_docs.py::test_none"]
    assert [name for name in named_files(page) if missing(page, name)] == wrong


@pytest.mark.parametrize("page", TEXTS, ids=shown)
def test_every_link_leads_to_a_file_or_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        path, _, heading = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), flags=re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], target


def unknown(name: str) -> bool:
    """Whether a dotted name is neither a module where it lies today nor something in one."""
    inside = (
        name.removeprefix("curl_rl.") if name.startswith("curl_rl.envs") else name
    )  # in a clone, beside the package
    names = inside.split(".")
    for count in range(len(names), 0, -1):
        path = ROOT.joinpath(*names[:count])
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            if count == len(names):
                return False
            found: Any = importlib.import_module(".".join(names[:count]))
            for part in names[count:]:
                found = getattr(found, part, None)
                # A module that is not where its name says was imported by an earlier name, perhaps by another test.
                if found is None or isinstance(found, ModuleType):
                    return True
            return False
    return True


@pytest.mark.parametrize("page", TEXTS, ids=shown)
def test_every_module_that_a_page_names_exists(page: Path) -> None:
    found = re.findall(r"(?<![\w./-])curl_rl(?:\.\w+)+(?![\w/])", page.read_text())
    assert [name for name in found if name != "curl_rl.json" and unknown(name)] == []


def test_earlier_and_wrong_names_of_modules_are_unknown() -> None:
    assert not unknown("curl_rl.testing.check_objective")
    assert not unknown("curl_rl.encoders.Encoder.describe")
    assert unknown("curl_rl.export")  # still imports, but is not the place to name
    assert unknown("curl_rl.testing.check_everything")


def test_the_index_lists_every_page_once() -> None:
    rows = re.findall(r"^\| \[(.+?)\]\((.+?)\) \|", (DOCS / "README.md").read_text(), flags=re.MULTILINE)
    assert all(name == target for name, target in rows)
    assert sorted(name for name, _ in rows) == sorted(
        path.name for path in DOCS.glob("*.md") if path.name != "README.md"
    )


def test_the_readme_maps_every_folder_and_is_short() -> None:
    readme = TEXTS[0].read_text()
    (drawn,) = re.findall(r"## Map\n\n```\n(.*?)```", readme, flags=re.DOTALL)
    ours = [path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()]
    assert [
        folder for folder in (*ours, "scripts", "configs", "tests", "docs", "results") if f"{folder}/" not in drawn
    ] == []
    assert len(readme.splitlines()) <= 120


def test_the_readme_names_every_method() -> None:
    (table,) = re.findall(r"^\| family \| methods \|\n(.*?)\n\n", TEXTS[0].read_text(), flags=re.DOTALL | re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted(registry.METHODS)


def test_the_page_of_metrics_names_exactly_what_runs_log(tmp_path: Path) -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", (DOCS / "metrics.md").read_text(), flags=re.MULTILINE)
    assert len(set(rows)) == len(rows)
    pytest.importorskip("tokenizers")
    images = tmp_path / "images"
    for split in ("train", "test"):
        make_classes(images / split, one=6, two=6)
    directories = [(trained(tiny(tmp_path / "agent")), "frames")]
    in_time = tiny(tmp_path / "in_time", objectives=ObjectiveConfigs(dim=DIMConfig(future=1, units=8)))
    directories.append((trained(replace(in_time, agent=replace(in_time.agent, objective="dim"))), "frames"))
    agent = tiny(tmp_path / "cpc")
    agent = replace(agent, agent=replace(agent.agent, objective="cpc"))
    directories.append((trained(agent), "frames"))
    config = VisionConfig(
        data=str(images),
        epochs=1,
        batch_size=4,
        device="cpu",
        encoder=BackboneConfig(resnet=ResNetConfig(width=1 / 16, stem="small"), precision="float32"),
        augment=AugmentConfig(size=6),
        objectives=ObjectiveConfigs(
            deepcluster=DeepClusterConfig(clusters=2),
            dim=DIMConfig(units=8, global_weight=1.0),
            nnclr=NNCLRConfig(queue=8),
            pcl=PCLConfig((2,), warmup_epochs=0),
        ),
        optimizer=OptimizerConfig("adamw", lr=1e-3, lr_scaling="none"),
        knn=KNNConfig(every=1, k=3),
        log=LogConfig(every=1, images_every=0, projector=0),
        compute=ComputeConfig(threads=1),
    )
    of_texts = [name for name, method in registry.METHODS.items() if "text" in method.objective.needs]
    of_images = [name for name in registry.METHODS if name not in (*of_texts, "cpc")]  # single images have no future
    for method in of_images:
        epochs = 2 if method in ("deepcluster", "pcl") else 1  # they compare the clusters of two epochs
        augment = AugmentConfig(size=6, views=1 if method in ("cmc", "dim", "instdisc", "open_world") else 2)
        encoder = replace(config.encoder, split="lab" if method == "cmc" else "none")
        run = replace(config, method=method, encoder=encoder, epochs=epochs, augment=augment, run=tmp_path / method)
        directories.append((pretrain(run), "images"))
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("".join(f"sentence {number}\n" for number in range(6)))
    changes = {"data": str(sentences), "batch_size": 3, "epochs": 1, "optimizer": {"warmup_epochs": 0}}
    changes["objectives"] = {"simcse": {"masked_weight": 0.1}}
    of_pairs = methods_of_pairs()
    for method in (name for name in of_texts if name not in of_pairs):
        on_texts = load_text_preset("tiny", method, {**changes, "run": str(tmp_path / method), "log": {"every": 1}})
        directories.append((pretrain_on_texts(on_texts), "sentences"))
    files = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    (images / "captions.tsv").write_text(captions_text((file, file) for file in files))
    changes |= {"data": str(images), "augment": {"size": 6}}
    for method in of_pairs:
        on_pairs = load_pair_preset("tiny", method, {**changes, "run": str(tmp_path / method), "log": {"every": 1}})
        directories.append((pretrain_pairs(on_pairs), "pairs"))
    logged = {name for path, axis in directories for row in read_metrics(path / "metrics.jsonl", axis) for name in row}
    assert {name for name in rows if not name.endswith("<name>")} == logged
    # Logged by agents with several objectives, and by runs on recorded frames.
    assert [name for name in rows if name.endswith("<name>")] == ["objective/<method>/<name>", "test/<name>"]
