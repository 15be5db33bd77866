"""The training that ``time_to_accuracy`` compares: that of ``python -m npnets train``, and what a peer needs for it."""

from dataclasses import asdict

import numpy as np

from npnets import optim, runs, training
from npnets.benchmarks import networks


def arguments(settings):
    """Return the arguments of ``fit`` for the settings of a run.

    Differs from ``python -m npnets train`` in the padding alone: symmetric, since PyTorch's layers have no padding at
    the bottom and right only.
    """
    found, _ = runs.assemble(settings)
    for _, module in found["model"].named_modules():
        if getattr(module, "padding", None) == "same":
            module.padding = "symmetric"
    return found


def job(settings):
    """Return what the workers must know of a training: the network, its plan, the optimizer, the steps."""
    found = arguments(settings)
    train_set, model = found["train"], found["model"]
    unknown = found["label_smoothing"] or found["average"] is not None or settings["dropout"]
    if unknown or not isinstance(found["optimizer"], optim.RMSProp):
        raise ValueError("the peers have RMSProp alone, no dropout, label smoothing or weight averages")
    width = {} if settings["width"] == 1.0 else {"width_mult": settings["width"]}
    image, classes = train_set.images.shape[1:], len(train_set.class_names)
    network = networks.Network(settings["model"], settings["model"], width, image, 32, classes)
    steps = found["epochs"] * (len(train_set) // found["batch_size"])
    return {
        "settings": settings,
        "network": asdict(network),
        "plan": networks.plan_of(model),
        "optimizer": _optimizer_settings(found["optimizer"]),
        "rates": [found["schedule"](step) for step in (steps // 4, steps // 2, steps // 4)],  # of the check's steps
        "steps": steps,
        "batch_size": found["batch_size"],
    }


def _optimizer_settings(given):
    """Return the numbers of an optimizer, and the names of the parameters that weight decay applies to."""
    decayed = [parameter.name for parameter in given.parameters if parameter.decay]
    return {name: getattr(given, name) for name in given.settings} | {"decayed": decayed}


def optimizer(model, settings):
    """Return the ``RMSProp`` of these settings for another model."""
    numbers = {name: value for name, value in settings.items() if name != "decayed"}
    return optim.RMSProp(model.parameters(), 0.0, **numbers)


class _Drawing(training.Run):
    """A training that only draws its batches."""

    def drawn(self):
        """Return the images of all steps, uint8 (steps, N, H, W, C), and their labels (steps, N)."""
        steps = self.epochs * self.steps_per_epoch
        C = self.train.images.shape[-1]
        self.mean, self.std = np.zeros(C), np.full(C, 1 / 255)  # so that normalized pixels are the pixels
        images = np.empty((steps, self.batch_size, *self.train.images.shape[1:]), np.uint8)
        labels = np.empty((steps, self.batch_size), np.int64)
        for step in range(steps):
            self.epoch, self.step_in_epoch = divmod(step, self.steps_per_epoch)
            pixels, labels[step] = self._batch()
            images[step] = np.rint(pixels)
        return images, labels


def draw(settings, path):
    """Write what a peer needs to train as npnets does.

    The file holds the augmented ``images`` of every step and their ``labels``, the learning ``rates``, the test images
    and labels, ``mean`` and ``std`` of the training images, and the weights to start from, ``float32.start.*``.
    """
    found = arguments(settings)
    run = _Drawing(**found, callbacks=())
    mean, std = run.mean, run.std
    images, labels = run.drawn()
    start = {f"float32.start.{name}": array for name, array in found["model"].state_dict().items()}
    np.savez(
        path,
        images=images,
        labels=labels,
        rates=np.array([found["schedule"](step) for step in range(len(images))]),
        test_images=found["test"].images,
        test_labels=found["test"].labels,
        mean=mean,
        std=std,
        **start,
    )
