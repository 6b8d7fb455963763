"""The second and third stages of SimCLR v2 (Chen et al. 2020, arXiv 2006.10029), from saved runs to saved classifiers.

A pretraining run is fine-tuned into a classifier on a share of the labels; the classifier then teaches a student on all
images. Each stage writes a classifier (:mod:`curl_rl.vision.evaluation.classifier_file`) to its own directory.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from curl_rl.artifacts.encoder_file import last_names
from curl_rl.artifacts.head_file import load_head
from curl_rl.encoders import Encoder, ResNet, ResNetConfig
from curl_rl.encoders.base import weights_from
from curl_rl.runs.compute import resolve_precision
from curl_rl.runs.console import say
from curl_rl.runs.disk_errors import cannot_write
from curl_rl.runs.errors import UserError
from curl_rl.runs.seeds import check_seed
from curl_rl.vision.data import balanced_subset, load, warn_about_unseen_classes, whole_path
from curl_rl.vision.data.image_sets import ImageSet, ResidentImages, SmallImages
from curl_rl.vision.evaluation.classifier_file import CLASSIFIER, SavedClassifier, load_classifier, save_classifier
from curl_rl.vision.evaluation.consistency import ConsistencyConfig, fine_tune_consistently
from curl_rl.vision.evaluation.distillation import UNLABELED, DistillationConfig, distill
from curl_rl.vision.evaluation.finetuning import SupervisedConfig, fine_tune, fine_tuning
from curl_rl.vision.evaluation.saved_runs import read_run

_EPOCHS_WITH_UNLABELED = 300  # of few labeled images, and so of a few steps each
_LABELED_BESIDE_UNLABELED = 64  # in a batch, as in UDA


def fine_tune_run(
    run: Path,
    directory: Path,
    *,
    labels: float = 0.1,
    from_layer: int = 0,
    data: str | None = None,
    epochs: int | None = None,
    learning_rate: float = SupervisedConfig.learning_rate,
    unlabelled: str | None = None,
    consistency: ConsistencyConfig = ConsistencyConfig(),  # noqa: B008 (frozen)
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> float:
    """Fine-tunes a pretraining run's whole network on some of the labels, and saves the classifier.

    Crops have the scale and flips of the pretraining views. The choice of labels does not depend on the seed.

    Args:
        run: the run directory.
        directory: directory of the new classifier; it is created.
        labels: share of the training set's labels, the same number from each class; 1 takes all.
        from_layer: layers of the projection head to keep on the encoder: the paper keeps 1 of 3 when labels are few.
        data: images to train and test on; None, those of the run.
        epochs: epochs of fine-tuning; None, SimCLR's: 60, or 30 from a tenth of the labels on; 300 with ``unlabelled``.
        learning_rate: the peak learning rate.
        unlabelled: images that take part without labels (UDA, arXiv 1904.12848): a folder, or an empty string for all
            training images; None: none do.
        consistency: how they take part.
        seed: seed of the order and the crops.
        device: device to compute on.

    Returns:
        Top-1 accuracy on the test images after the last epoch, in [0, 1].

    Raises:
        ValueError: the run, its head or the data are unsuitable, or the directory already holds a classifier.
        FloatingPointError: the training diverged.
    """
    check_seed(seed)
    pretrained = read_run(run, device)
    if not 0 < labels <= 1:
        raise UserError(f"labels must be a share above 0 and at most 1, got {labels:g}")
    head = load_head(run).to(device) if from_layer else None
    layers = 0 if head is None else len(head)
    if not 0 <= from_layer <= layers:
        raise UserError(f"from_layer must be from 0 to {layers}, the layers of the head in {run}, got {from_layer}")
    if unlabelled is not None and epochs is None:
        epochs = _EPOCHS_WITH_UNLABELED
    settings = fine_tuning(labels, pretrained.crops, epochs=epochs, learning_rate=learning_rate)
    if unlabelled is not None:
        settings = dataclasses.replace(settings, batch_size=_LABELED_BESIDE_UNLABELED)
    _refuse_another(directory)
    source, side = whole_path(data or pretrained.config.data), pretrained.encoder.input_shape[-1]
    train, test = _both(source, *pretrained.sizing, device)
    warn_about_unseen_classes(train, test)
    targets = train.required_labels()
    chosen = balanced_subset(targets, labels, seed=0)
    images = train.everything().images
    unlabeled = images
    if unlabelled:
        unlabeled = _resident(whole_path(unlabelled), train.size, pretrained.config.small_images, device).images
    _make_room(directory)
    labeled = images[chosen], targets[chosen]
    tested = test.everything().images, test.required_labels()
    prefix = None if head is None else head[:from_layer]
    generator, classes = torch.Generator(device).manual_seed(seed), len(train.classes)
    if unlabelled is None:
        trained = fine_tune(
            pretrained.encoder,
            *labeled,
            *tested,
            classes=classes,
            generator=generator,
            config=settings,
            head_prefix=prefix,
            size=side,
        )
    else:
        trained = fine_tune_consistently(
            pretrained.encoder,
            *labeled,
            unlabeled,
            *tested,
            classes=classes,
            generator=generator,
            training=settings,
            config=consistency,
            head_prefix=prefix,
            size=side,
        )
    accuracy = float(trained.accuracy)
    provenance = {
        "stage": "fine-tuning",
        "run": last_names(run.absolute()),
        "data": source,  # the whole path: by default students learn from the same images
        "loaded_size": train.size,
        "small_images": pretrained.config.small_images,
        "labels": labels,
        "from_layer": from_layer,
        "seed": seed,
        "training": dataclasses.asdict(settings),
        "test_accuracy": accuracy,
    }
    if unlabelled is not None:
        provenance["unlabelled"] = last_names(unlabelled) if unlabelled else "the training images"
        provenance["consistency"] = dataclasses.asdict(consistency)
    if train.layout:
        say(train.layout)
    save_classifier(trained.network, directory, classes=train.classes, image_size=side, provenance=provenance)
    return accuracy


def distill_classifier(
    teacher: Path,
    directory: Path,
    *,
    student: Path | None = None,
    depth: int | None = None,
    width: float | None = None,
    labelled: float = 0.0,
    alpha: float = 1.0,
    temperature: float | None = None,
    data: str | None = None,
    epochs: int = 100,
    learning_rate: float | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> float:
    """Trains a student on a classifier's predictions for all training images, labeled or not, and saves it.

    Args:
        teacher: directory of the classifier.
        directory: directory of the student; it is created.
        student: a pretraining run whose encoder the student starts from; None, a new network like the teacher's.
        depth: depth of a new network; None, the teacher's.
        width: width of a new network; None, the teacher's.
        labelled: share of the training set's labels in the mix, the same number from each class; 1 takes all.
        alpha: the weight of the teacher's predictions; that of the labels is 1 − alpha, for the images that have one
            (:func:`~curl_rl.vision.evaluation.distillation.mixed_distillation_loss`).
        temperature: temperature of both softmaxes; None: 0.1 for a student of the teacher's shape, 1 for others (our
            choice; the released notebook uses 1).
        data: images to train and test on; None, those of the teacher.
        epochs: epochs of the student's training.
        learning_rate: the peak learning rate; None, that of fine-tuning, times the temperature if it is below 1,
            because the gradient is divided by the temperature.
        seed: seed of a new network, the order and the crops.
        device: device to compute on.

    Returns:
        Top-1 accuracy on the test images after the last epoch, in [0, 1].

    Raises:
        ValueError: teacher, student and data do not fit together, or the directory already holds a classifier.
        FloatingPointError: the training diverged.
    """
    check_seed(seed)
    master = load_classifier(teacher).to(device)
    made_of = master.provenance
    if not 0 <= labelled <= 1:
        raise UserError(f"labelled must be a share from 0 to 1, got {labelled:g}")
    if (labelled > 0) != (alpha < 1):
        raise UserError(
            f"labelled {labelled:g} and alpha {alpha:g} contradict each other: labels are weighted by 1 − alpha, so "
            "set both labelled above 0 and alpha below 1, or neither"
        )
    if student is not None and (depth is not None or width is not None):
        raise UserError("depth and width apply to a new network only: leave them out, or leave out student")
    encoder = _new_student(master, depth, width, seed) if student is None else read_run(student, device).encoder
    encoder.to(device).requires_grad_(True)
    precision = resolve_precision("auto", torch.device(device))
    if student is None:  # a run's encoder has its own
        encoder.precision = precision
    master.encoder.precision = precision
    side = encoder.input_shape[-1]
    if side != master.image_size:
        raise UserError(
            f"{student} was trained on views of {side} pixels, but the teacher on {master.image_size}: "
            "they must be the same"
        )
    if temperature is None:
        temperature = 0.1 if _shape(encoder) == _shape(master.encoder) else 1.0
    crops = {name: made_of["training"][name] for name in ("crop_scale", "mirror")}
    settings = DistillationConfig(temperature=temperature, alpha=alpha)
    if learning_rate is None:
        learning_rate = SupervisedConfig.learning_rate * min(temperature, 1.0)
    training = SupervisedConfig(epochs=epochs, learning_rate=learning_rate, **crops)
    settings = dataclasses.replace(settings, training=training)
    _refuse_another(directory)

    source, size = whole_path(data or made_of["data"]), made_of["loaded_size"]
    small_images: SmallImages = made_of.get("small_images", "auto")  # not in earlier classifiers
    train, test = _both(source, size, small_images, device)
    if test.classes != master.classes:
        raise UserError(f"{test.name} has the classes {_few(test.classes)}; the teacher's are {_few(master.classes)}")
    if labelled:
        targets = train.required_labels()
        chosen = balanced_subset(targets, labelled, seed=0)
        known = torch.full_like(targets, UNLABELED)
        known[chosen] = targets[chosen]
    _make_room(directory)
    trained = distill(
        master.network,
        encoder,
        train.everything().images,
        known if labelled else None,
        test.everything().images,
        test.required_labels(),
        generator=torch.Generator(device).manual_seed(seed),
        config=settings,
        size=master.image_size,
    )
    accuracy = float(trained.accuracy)
    provenance = {
        "stage": "distillation",
        "teacher": last_names(teacher.absolute()),
        "student": None if student is None else last_names(student.absolute()),
        "data": source,
        "loaded_size": train.size,
        "small_images": small_images,
        "labelled": labelled,
        "alpha": alpha,
        "temperature": temperature,
        "seed": seed,
        "training": dataclasses.asdict(training),
        "test_accuracy": accuracy,
    }
    if train.layout:
        say(train.layout)
    save_classifier(
        trained.network, directory, classes=master.classes, image_size=master.image_size, provenance=provenance
    )
    return accuracy


def _new_student(teacher: SavedClassifier, depth: int | None, width: float | None, seed: int) -> Encoder:
    like = teacher.encoder
    if not isinstance(like, ResNet):
        raise UserError("the teacher must be a ResNet to build a new network like it: pass a run as student")
    changes = {name: value for name, value in (("depth", depth), ("width", width)) if value is not None}
    fields = dataclasses.asdict(like.config) | changes
    with weights_from(seed):
        return ResNet(like.image_shape, ResNetConfig(**fields))


def _shape(encoder: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in encoder.state_dict().items()}


def _refuse_another(directory: Path) -> None:
    """Refuses a directory that already holds a classifier, before any images are read."""
    if (directory / f"{CLASSIFIER}.json").exists():
        raise UserError(f"{directory} already holds a classifier: choose another --out directory, or remove it")


def _make_room(directory: Path) -> None:
    """Creates the directory, after all other checks and before minutes of training.

    Raises:
        UserError: it cannot be created.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(cannot_write(directory, error)) from None


def _both(source: str, size: int, small_images: SmallImages, device: torch.device | str) -> tuple[ImageSet, ImageSet]:
    """Loads training and test images, on the device or, if they do not fit there, in the host's memory."""
    train = _resident(source, size, small_images, device)
    device = train.images.device
    return train, load(source, "test", size, device=device, storage="memory", small_images=small_images)


def _resident(source: str, size: int, small_images: SmallImages, device: torch.device | str) -> ResidentImages:
    """Training images, on the device or, if they do not fit there, in the host's memory."""
    train = load(source, "train", size, device=device, small_images=small_images)
    if not isinstance(train, ResidentImages):
        train = load(source, "train", size, device="cpu", storage="memory", small_images=small_images)
    assert isinstance(train, ResidentImages)
    return train


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"
