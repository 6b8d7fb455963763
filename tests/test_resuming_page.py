"""The page about resuming lists what the code lets change, and the advice after a fault keeps to it."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from curl_rl.rl import config as rl
from curl_rl.rl import training
from curl_rl.runs.session import Remedies
from curl_rl.runs.settings import to_dict
from curl_rl.text import config as text
from curl_rl.text import pretraining as text_pretraining
from curl_rl.vision import config as vision
from curl_rl.vision import pretraining
from helpers.pages import DOCS


def test_the_table_lists_what_may_change() -> None:
    page = (DOCS / "resuming.md").read_text()
    found = re.findall(r"^\| `([\w.]+)` \| (yes|–) \| (yes|–) \| .* \|$", page, flags=re.MULTILINE)
    assert {name for name, agents, _ in found if agents == "yes"} == rl.MAY_CHANGE.keys()
    encoders = {name for name, _, encoders in found if encoders == "yes"}
    assert encoders == vision.MAY_CHANGE.keys()
    assert encoders >= text.MAY_CHANGE.keys()


@pytest.mark.parametrize(
    ("remedies", "config", "schema"),
    [
        (training._REMEDIES, rl.RunConfig(), rl.SCHEMA),
        (pretraining._REMEDIES, vision.VisionConfig(), vision.SCHEMA),
        (text_pretraining._REMEDIES, text.TextConfig(), text.SCHEMA),
    ],
)
def test_advice_to_change_what_a_resumed_run_may_not_change_names_fresh(
    remedies: Remedies, config: object, schema: rl.Schema[object]
) -> None:
    settings = to_dict(config)
    for field in fields(remedies):
        advice = getattr(remedies, field.name)
        named = set(re.findall(r"[a-z_]+(?:\.[a-z_]+)+|batch_size", advice))
        for name in named:
            known: object = settings
            for part in name.split("."):
                assert isinstance(known, dict)
                known = known[part]  # the advice names only settings that exist
        fixed = {name for name in named if not {name, name.split(".")[0]} & schema.may_change.keys()}
        if fixed or "learning rate" in advice:
            assert "--fresh" in advice, field.name
