"""torchvision's references/classification/train.py with its defaults, rewritten for a processor.

Its defaults: SGD with learning rate 0.1, momentum 0.9, weight decay 1e-4, StepLR(30, 0.1); the training
preset RandomResizedCrop(224) + flip on PIL images, the evaluation preset Resize(256) + CenterCrop(224); a
DataLoader with worker processes; float32, NCHW; accuracy and loss read after every step by its MetricLogger.
Its 16 workers become one per core here, which is faster on few cores.
"""

from __future__ import annotations

import time

import torch
from clock import Clock, TimeIsUp, parse_options, say
from network import open_network
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from torchvision.transforms.functional import InterpolationMode

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 1e-4


def main() -> None:
    options = parse_options(__doc__)
    began = time.perf_counter()
    train_loader, valid_loader = open_loaders(options)
    network = open_network(options.architecture, len(train_loader.dataset.classes), options.weights)
    criterion = nn.CrossEntropyLoss()
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    rate = options.learning_rate or LEARNING_RATE
    optimizer = torch.optim.SGD(learning, lr=rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=30, gamma=0.1)
    clock = Clock(seconds=options.seconds)
    accuracy = 0.0
    try:
        for _ in range(options.epochs):
            train_one_epoch(network, criterion, optimizer, train_loader, clock, options.batch_size)
            schedule.step()
            accuracy = evaluate(network, criterion, valid_loader)
            if options.target and accuracy >= options.target:
                break
    except TimeIsUp:
        pass
    say(clock.report() | {"accuracy": accuracy, "seconds": time.perf_counter() - began})


def open_loaders(options):
    size = options.image_size
    tail = [v2.PILToTensor(), v2.ToDtype(torch.float, scale=True), v2.Normalize(MEAN, STD), v2.ToPureTensor()]
    bilinear = InterpolationMode.BILINEAR
    train = ImageFolder(
        f"{options.data}/train",
        v2.Compose(
            [
                v2.RandomResizedCrop(size, interpolation=bilinear, antialias=True),
                v2.RandomHorizontalFlip(),
                *tail,
            ]
        ),
    )
    valid = ImageFolder(
        f"{options.data}/valid",
        v2.Compose(
            [v2.Resize(size * 8 // 7, interpolation=bilinear, antialias=True), v2.CenterCrop(size), *tail]
        ),
    )
    return tuple(
        DataLoader(
            dataset,
            batch_size=options.batch_size,
            sampler=sampler(dataset),
            num_workers=options.workers,
            pin_memory=torch.cuda.is_available(),
        )
        for dataset, sampler in ((train, RandomSampler), (valid, SequentialSampler))
    )


def train_one_epoch(network, criterion, optimizer, loader, clock, batch_size) -> None:
    network.train()
    meters = {"loss": 0.0, "acc1": 0.0, "acc5": 0.0}
    for image, target in clock.watch(loader, batch_size):
        output = network(image)
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        acc1, acc5 = topk_accuracies(output, target)
        meters = {"loss": loss.item(), "acc1": acc1.item(), "acc5": acc5.item()}
    del meters


def topk_accuracies(output, target):
    with torch.inference_mode():
        _, predicted = output.topk(min(5, output.shape[1]), 1, True, True)
        correct = predicted.t().eq(target[None])
        return [correct[:k].flatten().sum(dtype=torch.float32) / len(target) for k in (1, 5)]


def evaluate(network, criterion, loader) -> float:
    network.eval()
    right = seen = 0
    with torch.inference_mode():
        for image, target in loader:
            output = network(image)
            criterion(output, target).item()
            right += int((output.argmax(1) == target).sum())
            seen += len(target)
    return right / seen


if __name__ == "__main__":
    main()
