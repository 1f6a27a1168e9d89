"""A loop on timm's own create_dataset, create_loader and create_optimizer_v2 with its train.py's defaults.

Those: SGD (Nesterov) with momentum 0.9 and weight decay 2e-5, learning rate 0.1 x batch / 256 under a
cosine with 5 warm-up epochs, label smoothing 0.1, colour jitter 0.4, random interpolation,
prefetcher on, float32, NCHW. Its 4 workers become one per core here.
"""

from __future__ import annotations

import time

import torch
from clock import Clock, TimeIsUp, parse_options, say
from network import open_network
from timm.data import create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLOR_JITTER = 0.4
SMOOTHING = 0.1


def main() -> None:
    options = parse_options(__doc__)
    began = time.perf_counter()
    train_loader, valid_loader = open_loaders(options)
    num_classes = len(train_loader.dataset.reader.class_to_idx)
    network = open_network(options.architecture, num_classes, options.weights)
    rate = options.learning_rate or 0.1 * options.batch_size / 256
    optimizer = create_optimizer_v2(network, opt="sgd", lr=rate, weight_decay=2e-5, momentum=0.9)
    schedule, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=300, warmup_epochs=5)
    criterion = LabelSmoothingCrossEntropy(SMOOTHING)
    clock = Clock(seconds=options.seconds)
    accuracy = 0.0
    try:
        for epoch in range(options.epochs):
            network.train()
            for images, targets in clock.watch(train_loader, options.batch_size):
                loss = criterion(network(images), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            schedule.step(epoch + 1)
            accuracy = evaluate(network, valid_loader)
            if options.target and accuracy >= options.target:
                break
    except TimeIsUp:
        pass
    say(clock.report() | {"accuracy": accuracy, "seconds": time.perf_counter() - began})


def open_loaders(options):
    shared = {
        "input_size": (3, options.image_size, options.image_size),
        "batch_size": options.batch_size,
        "num_workers": options.workers,
        "mean": MEAN,
        "std": STD,
        "pin_memory": False,
        "device": torch.device("cpu"),
        "use_prefetcher": True,
    }
    train, valid = (create_dataset("", root=f"{options.data}/{split}") for split in ("train", "valid"))
    return (
        create_loader(train, is_training=True, color_jitter=COLOR_JITTER, interpolation="random", **shared),
        create_loader(valid, is_training=False, interpolation="bicubic", crop_pct=0.875, **shared),
    )


def evaluate(network, loader) -> float:
    network.eval()
    right = seen = 0
    with torch.inference_mode():
        for images, targets in loader:
            right += int((network(images).argmax(1) == targets).sum())
            seen += len(targets)
    return right / seen


if __name__ == "__main__":
    main()
