"""Two encoders, one for images and one for texts: a step against the loop written out, and runs that resume."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curl_rl.artifacts.network_file import load_network, network_files
from curl_rl.encoders import Features, ResNet, ResNetConfig, TextEncoder, build_encoder
from curl_rl.objectives import METHODS, BatchInfo, Method, ObjectiveUser, Result, ViewSpec
from curl_rl.pretraining.checks import try_out
from curl_rl.pretraining.config import OptimizerConfig
from curl_rl.pretraining.learner import Learner
from helpers.noise_pairs import (
    IMAGE,
    MATCHED,
    SMALL_TEXT,
    TEXT,
    TOKENS,
    Matched,
    MatchedConfig,
    PairSource,
    pair_plan,
    texts,
)
from helpers.noise_runs import assert_same_run, at_step, die, networks, train, train_until_killed, trainer
from helpers.noise_source import NoiseSource

BATCH, STEPS = 5, 2
SGD = OptimizerConfig("sgd", lr=0.1, lr_scaling="none", momentum=0.9, weight_decay=1e-2)
Views = dict[ViewSpec, Tensor]


@pytest.fixture(autouse=True)
def matched(register: Callable[[Method], None]) -> None:
    register(MATCHED)


def towers() -> tuple[ResNet, TextEncoder, Matched]:
    torch.manual_seed(0)
    images = ResNet((3, 8, 8), ResNetConfig(width=1 / 16, stem="small")).double()
    words = TextEncoder(TOKENS, SMALL_TEXT).double().eval()  # no dropout: compared with a loop without it
    return images, words, Matched(images.feature_spec, texts=words.feature_spec).double()


def batches() -> list[Views]:
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(STEPS, BATCH, 3, 8, 8, generator=generator, dtype=torch.float64)
    return [{IMAGE: picture, TEXT: text} for picture, text in zip(pictures, texts().split(BATCH), strict=False)]


def test_steps_of_both_encoders_and_their_slow_copies_are_the_loop_written_out() -> None:
    images, words, method = towers()
    trained = Learner(
        copy.deepcopy(images),
        copy.deepcopy(method),
        SGD,
        batch_size=BATCH,
        steps_per_epoch=STEPS,
        epochs=1,
        text_encoder=copy.deepcopy(words),
    )
    for views in batches():
        trained.step(views, BatchInfo(), torch.arange(BATCH))

    slow_images, slow_words = copy.deepcopy(images), copy.deepcopy(words)
    modules: list[nn.Module] = [images, words, method]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    decayed, plain = ([p for p in parameters if (p.ndim > 1) is some] for some in (True, False))
    optimizer = torch.optim.SGD([{"params": decayed, "weight_decay": 1e-2}, {"params": plain}], lr=0.1, momentum=0.9)
    own = torch.arange(BATCH)
    for step, views in enumerate(batches()):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 + torch.cos(torch.tensor(torch.pi * step / STEPS)).item()) / 2
        image, text = images(views[IMAGE]), words(views[TEXT])
        with torch.no_grad():
            keys, texts_ = slow_images(views[IMAGE]), slow_words(views[TEXT])
        scores = method.form(image) @ texts_.T, text @ method.form(keys).T
        optimizer.zero_grad()
        (F.cross_entropy(scores[0], own) + F.cross_entropy(scores[1], own)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            for module, slow in ((images, slow_images), (words, slow_words)):
                for weight, copied in zip(module.parameters(), slow.parameters(), strict=True):
                    copied.copy_(0.8 * copied + 0.2 * weight)
    assert trained.text_encoder is not None
    assert trained.target is not None
    assert trained.text_target is not None
    found = [trained.encoder, trained.text_encoder, trained.objective, trained.target, trained.text_target]
    for one, other in zip(found, [*modules, slow_images, slow_words], strict=True):
        for (name, value), right in zip(one.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(value, right, msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("alone") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "matched", MATCHED)
        train(pair_plan(directory), PairSource())
    return directory


@pytest.mark.parametrize("step", [1, 4])
def test_killed_and_resumed_with_dropout_it_ends_with_the_same_weights(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    plan = pair_plan(tmp_path / "run")
    assert plan.text.text.dropout > 0
    train_until_killed(plan, lambda: at_step(monkeypatch, step, die), PairSource())
    train(plan, PairSource())
    assert_same_run(plan.directory, alone)


def test_noise_depends_on_the_runs_seed_and_leaves_the_global_generator_alone(alone: Path, tmp_path: Path) -> None:
    run = trainer(pair_plan(tmp_path / "run"), PairSource())
    batch = next(run.source.batches(5, seed=3))
    before = torch.get_rng_state()
    run.step(batch)
    assert torch.equal(torch.get_rng_state(), before)
    run.close()


def test_both_encoders_are_saved_and_in_the_checkpoint(alone: Path) -> None:
    saved = networks(alone)
    for name, tower in {"encoder": "encoder", "text_encoder": "text_encoder"}.items():
        loaded, description = load_network(network_files(alone / f"{name}.safetensors", name), name, build_encoder)
        assert description["provenance"]["method"] == "matched"
        for key, value in loaded.state_dict().items():
            assert torch.equal(value, saved[f"{tower}.{key}"]), key
    assert description["rendered_size"] == TOKENS[2]
    assert {name.partition(".")[0] for name in saved} == {
        *("encoder", "text_encoder", "objective", "target", "text_target"),
    }


def test_images_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^method matched needs text, which noise does not have: take simclr$"):
        trainer(pair_plan(tmp_path / "run"), NoiseSource())


def test_the_trial_gets_the_features_of_both_encoders(tmp_path: Path, register: Callable[[Method], None]) -> None:
    seen: list[list[torch.Size]] = []

    class Watched(Matched):
        def forward(self, online: list[Features], target: list[Features], batch: BatchInfo) -> Result:
            seen.append([view.vector.shape for view in (*online, *target)])
            return super().forward(online, target, batch)

    register(Method("watched", Watched, MatchedConfig, paper="none", summary="Pairs."))
    source = PairSource()
    user = ObjectiveUser("method", source.name, source.has)
    try_out(pair_plan(tmp_path, method="watched"), source.shapes, source.data, user)
    assert seen == [[(5, 4), (5, 8), (5, 4), (5, 8)]]
