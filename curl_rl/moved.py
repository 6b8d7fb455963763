"""Former module names: importing one still works, with a DeprecationWarning that gives the new name.

Names from a module that was split are looked up in each of its new modules. If a module moves again, only its row here
changes; tests/test_moved.py tries every name that was public.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

MOVED: dict[str, tuple[str, ...]] = {
    # augmentations
    "curl_rl.augment.colour": ("curl_rl.augment.color",),
    # networks
    "curl_rl.conv_relu": ("curl_rl.encoders.conv_relu",),
    "curl_rl.heads": ("curl_rl.encoders.heads",),
    "curl_rl.memory_format": ("curl_rl.encoders.memory_format",),
    "curl_rl.resnet": ("curl_rl.encoders.resnet",),
    # objectives and their optimizers
    "curl_rl.lars": ("curl_rl.optim.lars", "curl_rl.optim.groups"),
    "curl_rl.memory": ("curl_rl.objectives.momentum", "curl_rl.objectives.banks"),
    "curl_rl.schedules": ("curl_rl.optim.schedules",),
    # runs
    "curl_rl.checkpoint": ("curl_rl.runs.checkpoint", "curl_rl.runs.lock", "curl_rl.runs.seeds"),
    "curl_rl.command_line": ("curl_rl.runs.command_line",),
    "curl_rl.compute": ("curl_rl.runs.compute", "curl_rl.runs.faults"),
    "curl_rl.console": ("curl_rl.runs.console",),
    "curl_rl.durable": ("curl_rl.runs.files",),
    "curl_rl.errors": ("curl_rl.runs.errors",),
    "curl_rl.logger": ("curl_rl.runs.logger",),
    "curl_rl.meters": ("curl_rl.runs.meters",),
    "curl_rl.run_directory": ("curl_rl.runs.directory", "curl_rl.runs.faults"),
    "curl_rl.seeds": ("curl_rl.runs.seeds",),
    "curl_rl.settings": ("curl_rl.runs.settings",),
    "curl_rl.signals": ("curl_rl.runs.signals",),
    "curl_rl.storage": ("curl_rl.runs.storage",),
    # files of networks, recorded frames, learning curves
    "curl_rl.curves": ("curl_rl.report.curves",),
    "curl_rl.deployment": ("curl_rl.artifacts.programs",),
    "curl_rl.export": ("curl_rl.artifacts.encoder_file",),
    "curl_rl.frames": ("curl_rl.recordings.store",),
    "curl_rl.network_file": ("curl_rl.artifacts.network_file",),
    "curl_rl.pretrained": ("curl_rl.artifacts.pretrained",),
    "curl_rl.recording": ("curl_rl.recordings.recorder", "curl_rl.rl.acting"),
    "curl_rl.state_probe": ("curl_rl.recordings.probe",),
    # reinforcement learning
    "curl_rl.agent": ("curl_rl.rl.agent",),
    "curl_rl.config": ("curl_rl.rl.config",),
    "curl_rl.environments": ("curl_rl.rl.workers",),
    "curl_rl.episode_stream": ("curl_rl.rl.episode_stream",),
    "curl_rl.estimate": ("curl_rl.rl.estimate",),
    "curl_rl.evaluation": ("curl_rl.rl.evaluation",),
    "curl_rl.learner": ("curl_rl.rl.learner",),
    "curl_rl.pictures": ("curl_rl.rl.pictures",),
    "curl_rl.progress": ("curl_rl.rl.progress",),
    "curl_rl.replay": ("curl_rl.rl.replay",),
    "curl_rl.run_agent": ("curl_rl.rl.loading",),
    "curl_rl.run_checks": ("curl_rl.rl.checks",),
    "curl_rl.sac": ("curl_rl.rl.sac",),
    "curl_rl.starting_encoder": ("curl_rl.rl.starting_encoder",),
    "curl_rl.training": ("curl_rl.rl.training",),
    # images
    "curl_rl.vision.collapse": ("curl_rl.pretraining.collapse",),
    "curl_rl.vision.decoding": ("curl_rl.vision.data.decoding",),
    "curl_rl.vision.distillation": ("curl_rl.vision.evaluation.distillation",),
    "curl_rl.vision.distributed": ("curl_rl.pretraining.distributed",),
    "curl_rl.vision.export": ("curl_rl.vision.evaluation.classifier_file", "curl_rl.artifacts.head_file"),
    "curl_rl.vision.finetuning": ("curl_rl.vision.evaluation.finetuning", "curl_rl.encoders.heads"),
    "curl_rl.vision.image_sets": ("curl_rl.vision.data.image_sets",),
    "curl_rl.vision.knn": ("curl_rl.vision.evaluation.knn",),
    "curl_rl.vision.learner": ("curl_rl.pretraining.learner",),
    "curl_rl.vision.linear_probe": ("curl_rl.vision.evaluation.linear_probe", "curl_rl.pretraining.online_probe"),
    "curl_rl.vision.protocols": ("curl_rl.vision.evaluation.protocols",),
    "curl_rl.vision.recorded": ("curl_rl.vision.data.recorded",),
    "curl_rl.vision.run_checks": ("curl_rl.vision.checks",),
    "curl_rl.vision.run_images": ("curl_rl.vision.images",),
    "curl_rl.vision.runs": ("curl_rl.vision.evaluation.saved_runs",),
    "curl_rl.vision.stages": ("curl_rl.vision.evaluation.simclr_v2",),
}
"""Former module names, each with the modules that now hold its contents."""
RENAMED = {
    "UNLABELLED": "UNLABELED",
    "check_labelled": "check_labeled",
    "random_greyscale": "random_grayscale",
    "random_solarise": "random_solarize",
    "solarise": "solarize",
}
"""Names that were spelled differently in the former modules."""
WITHDRAWN = {
    "Backbone": "curl_rl.encoders.Encoder",
    "about": "the description of curl_rl.artifacts.programs.encoder_program(...)",
    "compute_in": "the attribute precision of every encoder",
    "describe_encoder": "the method describe of every encoder",
    "described_encoder": "curl_rl.encoders.build_encoder",
    "dynamic_shapes": "the method dynamic_shapes of curl_rl.artifacts.programs.encoder_program(...)",
    "example": "the method example of curl_rl.artifacts.programs.encoder_program(...)",
    "precision_of": "the attribute precision of every encoder",
    "side_of": "the attribute input_shape of every encoder",
    "traceable": "the module of curl_rl.artifacts.programs.encoder_program(...)",
}
"""Names that are gone, and what took their place."""


def install() -> None:
    """Makes the former names importable, with the lowest priority, so that no existing module is shadowed."""
    sys.meta_path.append(_Finder())


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return spec_from_loader(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        name, places = module.__name__, MOVED[module.__name__]
        advice = f"import from {' or '.join(places)}"
        # Frames of the import system do not count: the warning points to the line that imports.
        warnings.warn(f"{name} has moved: {advice}", DeprecationWarning, stacklevel=2)
        modules = [importlib.import_module(place) for place in places]

        def look_up(attribute: str) -> Any:
            now = RENAMED.get(attribute, attribute)
            for place in modules:
                if not now.startswith("__") and hasattr(place, now):
                    return getattr(place, now)
            instead = f"use {WITHDRAWN[attribute]}" if attribute in WITHDRAWN else advice
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}: {instead}")

        module.__dict__["__getattr__"] = look_up  # PEP 562
        module.__dict__["__all__"] = sorted({each for place in modules for each in vars(place) if each[0] != "_"})
