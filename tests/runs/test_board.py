"""What TensorBoard is told about a run, read back with TensorBoard's own classes."""

from __future__ import annotations

import re
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from curl_rl.runs.board import SCORES
from helpers.tiny_reach import train_on_tiny_reach

DOCUMENTED = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()


def test_a_run_has_charts_of_documented_metrics_and_is_listed_with_its_settings(tmp_path: Path) -> None:
    flags = "--frames 24 --log.every 8 --evaluation.every 24 --evaluation.episodes 1 --evaluation.video false"
    run = train_on_tiny_reach(tmp_path / "run", f"{flags} --log.images_every 0")
    events = EventAccumulator(str(run)).Reload()

    (tensor,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tensor.tensor_proto.string_val[0])
    assert [category.title for category in layout.category][:3] == ["Returns", "Losses", "Contrastive health"]
    drawn = [tag for category in layout.category for chart in category.chart for tag in chart.multiline.tag]
    assert len(set(drawn)) == len(drawn)
    for tag in drawn:
        assert f"| `{tag[1:-1]}` |" in DOCUMENTED or tag == "^test/loss$"
    # Every chart about an agent with a contrastive objective finds its curves.
    logged = events.Tags()["scalars"]
    for name in ("evaluation/return_mean", "critic/q", "objective/accuracy", "actor/entropy", "temperature/value"):
        assert sum(re.search(tag, name) is not None for tag in drawn) == 1
        assert name in logged

    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    settings = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["env"].string_value == "tiny-reach"
    assert settings["agent.batch_size"].number_value == 4
    assert settings["agent.detach_encoder"].bool_value is False
    assert settings["agent.encoder.strides"].string_value == "[2]"
    assert not {"run", "device", "encoder"} & settings.keys()
    content = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    assert [info.name.tag for info in experiment.metric_infos] == list(SCORES["frames"])
    assert set(SCORES["frames"]) <= set(logged)
