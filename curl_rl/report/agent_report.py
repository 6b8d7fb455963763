"""The parts of a report that need an agent: its crops, what it reacts to, and the map of its embeddings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from curl_rl.report.charts import embedding_maps
from curl_rl.report.page import Section, figure, png
from curl_rl.report.projection import principal_components
from curl_rl.rl.agent import Agent
from curl_rl.rl.contained import contained
from curl_rl.rl.loading import load_agent, load_learner
from curl_rl.rl.pictures import saliency_picture, seen_picture
from curl_rl.rl.playback import Moments, of_batch, play
from curl_rl.rl.saliency import saliency
from curl_rl.rl.workers import Environment
from curl_rl.runs.errors import UserError, one_line

_SHOWN = 6  # moments in the pictures
_COLORINGS = 5  # numbers of the physical state
_WIDTH = 1000  # of a picture on the page, in pixels


def add_agent(section: Section, directory: Path, make: Callable[[], Environment], *, moments: int, device: str) -> None:
    """Adds the parts that need the agent; where one cannot be made, a note says why.

    Args:
        section: the run's section of the page.
        directory: the run.
        make: makes the run's environment.
        moments: agent steps to play.
        device: device to compute on.
    """
    section.heading("What the agent sees")
    try:
        agent, config, frames = load_agent(directory, device)
    except UserError as error:
        section.note(f"Crops, saliency and embeddings need a checkpoint: {error}")
        return
    found = _moments(section, agent, directory, make, moments=moments, device=device, seed=config.seed)
    if found is None:
        return
    chosen = torch.linspace(0, len(found.features) - 1, min(_SHOWN, len(found.features))).long()
    some = found.observations[chosen]
    columns = 3 * agent.config.crop + some.shape[-1]
    seen = seen_picture(agent, some[:4], torch.Generator().manual_seed(0))
    section.figure(
        figure(
            png(seen),
            "png",
            "The newest frame of a stack whole; its center crop, on which the agent acts; two random crops, from which "
            f"it learns. The encoder sees {agent.config.crop} of {some.shape[-1]} pixels, in {some.shape[1]} channels.",
            width=_width(columns),
        )
    )
    section.heading("What actor and critic react to")
    on = agent.log_alpha.device
    beside = None if found.proprioception is None else found.proprioception[chosen].to(on)
    maps = saliency(agent, some.to(on), beside)
    section.figure(
        figure(
            png(saliency_picture(some, maps)),
            "png",
            "Above: newest frames. Middle: gradient of the action with respect to the pixels. Below: gradient of the Q "
            "value. Red pixels matter; each map is scaled to its own strongest pixels.",
            width=_width(len(some) * (some.shape[-1] + 2)),
        )
    )
    section.heading("Map of the embeddings")
    coordinates, shares = principal_components(found.features)
    colors = {"reward": found.rewards, "Q value": found.q}
    varying = [number for number in range(found.states.shape[1]) if float(found.states[:, number].std()) > 0]
    colors |= {found.state_names[number]: found.states[:, number] for number in varying[:_COLORINGS]}
    section.figure(
        figure(embedding_maps(coordinates, shares, colors), "svg+xml", _caption(found, frames, len(varying)))
    )


def _width(pixels: int) -> int:
    """Of a picture on the page: a whole multiple of its own, as far as there is room."""
    return pixels * max(1, _WIDTH // (2 * pixels) + 1) if pixels < _WIDTH // 2 else min(_WIDTH, 2 * pixels)


def _caption(found: Moments, frames: int, states: int) -> str:
    words = (
        f"The encoder's features of {len(found.features):,} moments after {frames:,} frames of training, along their "
        "two principal components. Where a color changes smoothly, the encoder has learned that quantity."
    )
    if states > _COLORINGS:
        words += f" The physical state has {states} numbers that vary; the first {_COLORINGS} are shown."
    return words


def _moments(
    section: Section,
    agent: Agent,
    directory: Path,
    make: Callable[[], Environment],
    *,
    moments: int,
    device: str,
    seed: int,
) -> Moments | None:
    """Moments played in the environment or, where that is impossible, taken from the replay; None if neither works."""
    try:
        env = contained(make)
    except Exception as error:  # an environment is user code and may raise any exception
        section.note(
            f"The environment cannot be made here ({one_line(error)}), so these moments are from the replay, without "
            "the physical state."
        )
    else:
        try:
            with tqdm(total=moments, unit="step", desc=f"playing {directory}", disable=None, leave=False) as bar:
                return play(agent, env, steps=moments, seed=seed, after_step=bar.update)
        except Exception as error:
            section.note(f"The environment failed ({one_line(error)}), so these moments are from the replay.")
        finally:
            env.close()
    try:
        learner, _ = load_learner(directory, device)
        return of_batch(agent, learner.sample())
    except (ValueError, IndexError, RuntimeError) as error:
        section.note(f"The replay cannot be read either: {one_line(error)}")
        return None
