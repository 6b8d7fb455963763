"""SimCLR on a folder of images, in a hundred lines of the package's parts.

    python examples/simclr_on_a_folder.py FOLDER                       # FOLDER/train/<class>/*.png, FOLDER/test/...
    python examples/simclr_on_a_folder.py digits --mirror 0            # a built-in set: about a minute on one CPU core

Chen et al. 2020 (arXiv 2002.05709). Reading the folder, the views, the network, the loss, the schedule and the
evaluation are functions of `curl_rl`; the training loop is yours to change. docs/images.md describes the folders that
are understood, and the command for the same that also resumes, logs, streams and runs on several GPUs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from curl_rl import ResNet, ResNetConfig
from curl_rl.artifacts.encoder_file import save_encoder
from curl_rl.objectives import BatchInfo, SimCLR, SimCLRConfig, encode_views
from curl_rl.optim.groups import parameter_groups
from curl_rl.optim.schedules import set_learning_rates, warmup_cosine
from curl_rl.runs.command_line import refusals
from curl_rl.runs.errors import UserError
from curl_rl.vision.data import load
from curl_rl.vision.data.image_sets import ImageSet
from curl_rl.vision.evaluation.protocols import Benchmark, EvaluationConfig, evaluate_encoder
from curl_rl.vision.views import AugmentConfig, make_views


def read(folder: str, size: int, device: torch.device) -> tuple[ImageSet, Benchmark | None]:
    """The images to learn from, and training and test images for nearest neighbors if there are any with labels."""
    # uint8 (B, 3, size, size) in batches on the device, from memory if all images fit there, else decoded as needed.
    images = load(folder, "train", size, device=device)
    try:
        benchmark = Benchmark(images, load(folder, "test", size, device=device))
        for part in benchmark:
            part.required_labels()
    except UserError as error:
        print(f"no nearest neighbors: {error}", file=sys.stderr)
        return images, None
    return images, benchmark


def neighbors(encoder: ResNet, benchmark: Benchmark | None) -> str:
    """Accuracy of nearest neighbors on the test images, for printing."""
    if benchmark is None:
        return ""
    found = evaluate_encoder(encoder, benchmark, EvaluationConfig(("knn",), k=min(10, len(benchmark.train))))
    return f", nearest neighbors {found['knn']:.1%}"


def main() -> None:
    """Pretrain without labels; print the loss and the accuracy of nearest neighbors, and save the encoder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a folder of images, or `digits`")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the images [%(default)s]")
    parser.add_argument("--batch_size", type=int, default=128, help="images, each as two views [%(default)s]")
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels [%(default)s]")
    parser.add_argument("--width", type=float, default=0.25, help="of the ResNet-18, 1 is the usual [%(default)s]")
    parser.add_argument("--mirror", type=float, default=0.5, help="probability; 0 for letters [%(default)s]")
    parser.add_argument("--lr", type=float, default=3e-3, help="AdamW's highest learning rate [%(default)s]")
    parser.add_argument("--seed", type=int, default=1, help="of all random numbers [%(default)s]")
    parser.add_argument("--out", type=Path, help="an existing folder to save the encoder in")
    arguments = parser.parse_args()
    if arguments.batch_size < 2:
        parser.error(f"--batch_size must be at least 2, got {arguments.batch_size}: each image is told from the others")
    torch.manual_seed(arguments.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator(device).manual_seed(arguments.seed)

    size, epochs = arguments.size, arguments.epochs
    with refusals(parser):  # a mistake in the folder or a setting is one line, not a traceback
        images, benchmark = read(arguments.folder, size, device)
        augment = AugmentConfig(size=size, scale=(0.4, 1.0), mirror=arguments.mirror)
        encoder = ResNet((3, size, size), ResNetConfig(width=arguments.width, stem="small")).to(device)
        objective = SimCLR(encoder.feature_spec, SimCLRConfig(temperature=0.2)).to(device)
    groups = [{"params": encoder.parameters()}, *objective.parameter_groups()]
    optimizer = torch.optim.AdamW(parameter_groups(groups, weight_decay=1e-4), arguments.lr)

    batch_size = min(arguments.batch_size, len(images))
    steps = images.batches_per_epoch(batch_size)
    print(f"{len(images):,} images, {steps} steps an epoch: untrained{neighbors(encoder, benchmark)}", flush=True)
    bar = tqdm(total=epochs * steps, desc="pretraining", unit="step", disable=None)
    for epoch in range(epochs):
        losses: list[torch.Tensor] = []
        for batch in images.batches(batch_size, seed=arguments.seed, epoch=epoch):
            share = warmup_cosine(epoch * steps + len(losses), epochs * steps // 10, epochs * steps)
            set_learning_rates(optimizer, share)
            views = make_views(batch.images, augment, generator)  # two, float32 (B, 3, size, size) in [0, 1]
            online = encode_views(encoder.encode, views, objective.online_views, together=objective.views_together)
            loss = objective(online, [], BatchInfo()).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            bar.update()
        loss_of_epoch = torch.stack(losses).mean()
        bar.write(f"epoch {epoch + 1:3}: loss {loss_of_epoch:.3f}{neighbors(encoder, benchmark)}")
    bar.close()

    if arguments.out is not None:
        save_encoder(encoder, arguments.out, rendered_size=size, provenance={"data": images.name})
        print(f'saved; in Python: curl_rl.load_encoder("{arguments.out}")')


if __name__ == "__main__":
    main()
