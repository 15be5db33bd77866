"""Training images made from training images: crops, mirror images, photometric distortion. And normalization.

An *augmentation* is any function ``(images, rng) -> images`` on uint8 batches (N, H, W, C). Each image of the batch
gets its own draw, the same generator state gives the same result, and the input is never written to. :func:`compose`
chains them; :func:`normalize` comes after the last one, for training and test images alike.

>>> augment = compose(lambda images, rng: random_crop(images, 4, rng), mirror)
>>> augment(np.zeros((8, 32, 32, 3), np.uint8), np.random.default_rng(0)).shape
(8, 32, 32, 3)
"""

from collections.abc import Callable

import numpy as np

from npnets.datasets.files import check_images
from npnets.shapes import integer

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def compose(*steps: Augmentation) -> Augmentation:
    """Return the augmentation that applies ``steps`` from the first to the last; without steps it changes nothing."""

    def augmentation(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for step in steps:
            images = step(images, rng)
        return images

    return augmentation


def random_crop(images: np.ndarray, pad: int, rng: np.random.Generator) -> np.ndarray:
    """Pad each image with ``pad`` zero pixels on every side and cut a random window of the old size out of it.

    With ``pad=4`` and :func:`mirror` this is the usual augmentation for CIFAR-10 (He et al. 2015, "Deep residual
    learning for image recognition", section 4.2).

    Parameters
    ----------
    images : uint8 array (N, H, W, C)
    pad : int
        Each of the ``(2 pad + 1)^2`` windows is equally likely.
    rng : np.random.Generator

    Returns
    -------
    uint8 array (N, H, W, C)

    Raises
    ------
    ValueError
        If ``images`` is no uint8 batch, ``pad`` is negative or ``rng`` no Generator.
    """
    _check(images, rng)
    pad = integer(pad, "pad", 0)
    N, H, W, C = images.shape
    padded = np.zeros((N, H + 2 * pad, W + 2 * pad, C), np.uint8)
    padded[:, pad : pad + H, pad : pad + W] = images
    top, left = rng.integers(0, 2 * pad + 1, size=(2, N))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (H, W), axis=(1, 2))  # (N, top, left, C, H, W), a view
    windows = np.moveaxis(windows, 3, -1)  # -> (N, top, left, H, W, C), so that whole rows are copied
    return np.ascontiguousarray(windows[np.arange(N), top, left])  # -> (N, H, W, C)


def mirror(images: np.ndarray, rng: np.random.Generator, probability: float = 0.5) -> np.ndarray:
    """Swap left and right in each image with ``probability``. Not for digits: a mirrored 2 is no digit.

    Parameters
    ----------
    images : uint8 array (N, H, W, C)
    rng : np.random.Generator
    probability : float
        From 0 to 1.

    Returns
    -------
    uint8 array (N, H, W, C)

    Raises
    ------
    ValueError
        If ``images`` is no uint8 batch, ``probability`` not in [0, 1] or ``rng`` no Generator.
    """
    _check(images, rng)
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must be from 0 to 1, got {probability!r}")
    mirrored = rng.random(len(images)) < probability
    out = images.copy()
    out[mirrored] = images[mirrored, :, ::-1]
    return out


def photometric_distortion(
    images: np.ndarray,
    rng: np.random.Generator,
    brightness: float = 32 / 255,
    contrast: float = 0.5,
    saturation: float = 0.5,
    hue: float = 0.2,
) -> np.ndarray:
    r"""Change brightness, saturation, hue and contrast of each image at random.

    With pixels in [0, 1] and for each image its own u_1 ... u_4 uniform in [-1, 1]:

    ========== ========================================================================
    brightness x + brightness u_1
    saturation S (1 + saturation u_2) in hue-saturation-value coordinates
    hue        H + hue u_3, in turns around the colour circle
    contrast   (x - mean) (1 + contrast u_4) + mean, mean over the pixels of a channel
    ========== ========================================================================

    A. Howard, "Some improvements on deep convolutional neural network based image classification" (2013), whom
    Inception and SSD (Liu et al. 2016, section 2.2) follow. Operations, order and default strengths are those of
    TensorFlow's preprocessing for Inception. With batch normalization weaker ones are better (Ioffe and Szegedy 2015,
    section 4.2, "Reduce the photometric distortions").

    *Differs* from TensorFlow: values are clipped to [0, 1] after the brightness too, because hue and saturation have no
    meaning outside; the order is always the one above, where TensorFlow draws one of four for each image.

    Parameters
    ----------
    images : uint8 array (N, H, W, C)
    rng : np.random.Generator
        Draws the same numbers whichever strengths are 0.
    brightness : float
        At least 0; 1 is the range from black to white.
    contrast, saturation : float
        From 0 to 1. Saturation needs C = 3 (red, green, blue).
    hue : float
        From 0 to 0.5 turns. Needs C = 3.

    Returns
    -------
    uint8 array (N, H, W, C)
        Rounded once, at the end; computed in float32.

    Raises
    ------
    ValueError
        If ``images`` is no uint8 batch, a strength is out of range, a colour change is asked of grey images, or ``rng``
        is no Generator.
    """
    _check(images, rng)
    strengths = {"brightness": brightness, "saturation": saturation, "hue": hue, "contrast": contrast}
    for name, strength in strengths.items():
        largest = 0.5 if name == "hue" else 1
        if not 0 <= strength <= largest:
            raise ValueError(f"{name} must be from 0 to {largest}, got {strength!r}")
    N, _, _, C = images.shape
    if C != 3 and (saturation or hue):
        raise ValueError(f"saturation and hue need 3 channels (red, green, blue), got {C}; set both to 0")

    u = rng.uniform(-1, 1, size=(N, 1, 1, 1, 4)) * list(strengths.values())
    brighter, more_saturation, turns, more_contrast = np.moveaxis(u.astype(np.float32), -1, 0)  # (N, 1, 1, 1) each
    x = np.clip(np.multiply(images, 1 / 255, dtype=np.float32) + brighter, 0, 1)
    if saturation:
        x = _scale_saturation(x, 1 + more_saturation)
    if hue:
        x = _turn_hue(x, turns)
    mean = x.mean(axis=(1, 2), keepdims=True)
    x = (x - mean) * (1 + more_contrast) + mean
    return np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)


def _scale_saturation(x: np.ndarray, factor: np.ndarray) -> np.ndarray:
    # S = (V - min) / V with V = max. Moving all channels towards or from V by one factor keeps V and the hue, and
    # scales S by it; S stops at 1, where the smallest channel reaches 0.
    value = x.max(axis=-1, keepdims=True)
    chroma = value - x.min(axis=-1, keepdims=True)
    largest = np.divide(value, chroma, out=np.ones_like(value), where=chroma > 0)  # grey pixels stay as they are
    return value - np.minimum(factor, largest) * (value - x)


def _turn_hue(x: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Add ``turns`` to the hue and keep saturation and value."""
    red, green, blue = (x[..., c : c + 1] for c in range(3))
    value = x.max(axis=-1, keepdims=True)
    chroma = value - x.min(axis=-1, keepdims=True)
    inverse = np.divide(1, chroma, out=np.zeros_like(chroma), where=chroma > 0)
    # The hue in sixths of a turn: 0 red, 2 green, 4 blue.
    hue = np.where(
        value == red,
        (green - blue) * inverse,
        np.where(value == green, (blue - red) * inverse + 2, (red - green) * inverse + 4),
    )
    # Back to colours: a channel is at V within a sixth of a turn of its own hue, and falls linearly to the minimum.
    distance = np.mod(hue + 6 * turns - np.array([0, 2, 4], x.dtype) + 3, 6) - 3  # (N, H, W, 1) -> (N, H, W, 3)
    return value - chroma * np.clip(np.abs(distance) - 1, 0, 1)


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each channel, in units where 255 is 1. Use the training images only.

    Parameters
    ----------
    images : uint8 array (N, H, W, C)

    Returns
    -------
    mean, std : float64 arrays (C,)
        The standard deviation divides by the number of pixels. The sums are integers, so both are exact to rounding.

    Raises
    ------
    ValueError
        If ``images`` is no uint8 batch or empty.
    """
    check_images(images)
    if images.size == 0:
        raise ValueError(f"statistics need at least one pixel, got images of shape {images.shape}")
    m = images[..., 0].size
    # Per pixel position first, so that long contiguous runs are added: (N, H, W, C) -> (H, W, C) -> (C,)
    totals = images.sum(axis=0, dtype=np.int64).sum(axis=(0, 1))
    squares = np.einsum("nhwc,nhwc->hwc", images, images, dtype=np.int64).sum(axis=(0, 1))
    # m E[x^2] - E[x]^2 m cancels badly in floating point; in Python's integers nothing is lost, and nothing overflows.
    variances = [(m * int(square) - int(total) ** 2) / m**2 for total, square in zip(totals, squares)]
    return totals / m / 255, np.sqrt(variances) / 255


def normalize(images: np.ndarray, mean, std, dtype=np.float32) -> np.ndarray:
    """Return ``(images / 255 - mean) / std``.

    Parameters
    ----------
    images : uint8 array (N, H, W, C)
    mean, std : arrays (C,) or floats
        As from :func:`channel_statistics` of the *training* images.
    dtype : float32 or float64
        Of the result and of the computation.

    Returns
    -------
    array (N, H, W, C)

    Raises
    ------
    ValueError
        If ``images`` is no uint8 batch, ``mean`` or ``std`` do not fit its channels, ``std`` is not positive, or
        ``dtype`` is another one.
    """
    check_images(images)
    C = images.shape[-1]
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    for name, value in (("mean", mean), ("std", std)):
        if value.shape not in ((), (C,)):
            raise ValueError(f"{name} must be a number or one for each of the {C} channels, got shape {value.shape}")
        if not np.all(np.isfinite(value)):
            raise ValueError(f"{name} must be finite, got {value}")
    if not np.all(std > 0):
        raise ValueError(f"std must be positive, got {std}; a channel that never varies cannot be normalized")
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
    out = np.multiply(images, (1 / (255 * std)).astype(dtype), dtype=dtype)
    out -= (mean / std).astype(dtype)
    return out


def _check(images, rng) -> None:
    check_images(images)
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng must be a np.random.Generator, as np.random.default_rng(seed) makes, got {rng!r}")
