"""Augmentation: every result can be traced to its input, draws are reproducible, inputs stay as they were."""

import colorsys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npnets import augment


def batch(rng, shape=(5, 6, 7, 3)):
    return rng.integers(0, 256, shape, dtype=np.uint8)


STEPS = {
    "crop": lambda images, rng: augment.random_crop(images, 2, rng),
    "crop by nothing": lambda images, rng: augment.random_crop(images, 0, rng),
    "mirror": augment.mirror,
    "mirror none": lambda images, rng: augment.mirror(images, rng, 0.0),
    "photometric": augment.photometric_distortion,
    "photometric none": lambda images, rng: augment.photometric_distortion(images, rng, 0, 0, 0, 0),
    "composed": augment.compose(lambda images, rng: augment.random_crop(images, 2, rng), augment.mirror),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_an_augmentation_keeps_shape_and_dtype_and_leaves_its_input_alone(step):
    images = batch(np.random.default_rng(0))
    before = images.copy()
    images.flags.writeable = False  # as the images of a Dataset are
    out = step(images, np.random.default_rng(1))
    assert out.shape == images.shape and out.dtype == np.uint8 and out.flags.c_contiguous
    assert not np.shares_memory(out, images)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("name", ["crop", "mirror", "photometric", "composed"])
def test_the_same_seed_gives_the_same_images_and_another_seed_others(name):
    images = batch(np.random.default_rng(0), (16, 6, 7, 3))
    one, again, other = (STEPS[name](images, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(0, 4), st.integers(1, 6), st.integers(1, 6), st.integers(1, 4)),
    pad=st.integers(0, 3),
)
def test_each_crop_is_a_window_of_its_own_padded_image(seed, shape, pad):
    rng = np.random.default_rng(seed)
    images = batch(rng, shape)
    H, W = shape[1:3]
    for image, out in zip(images, augment.random_crop(images, pad, rng)):
        padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        windows = [padded[i : i + H, j : j + W] for i in range(2 * pad + 1) for j in range(2 * pad + 1)]
        assert any(np.array_equal(out, window) for window in windows)


def test_every_crop_position_occurs_and_images_are_cropped_independently():
    images = np.zeros((2000, 3, 4, 1), np.uint8)
    images[:, 1, 2] = 1  # one bright pixel tells the position
    out = augment.random_crop(images, 1, np.random.default_rng(0))
    _, row, column, _ = np.nonzero(out)
    counts = np.zeros((3, 4), int)
    np.add.at(counts, (row, column), 1)
    assert np.all(counts[:, 1:] > 2000 / 9 / 2) and np.all(counts[:, 0] == 0)


@given(seed=st.integers(0, 2**32 - 1), shape=st.tuples(*[st.integers(1, 5)] * 4))
def test_a_mirror_image_swaps_columns_only(seed, shape):
    rng = np.random.default_rng(seed)
    images = batch(rng, shape)
    for image, out in zip(images, augment.mirror(images, rng)):
        assert np.array_equal(out, image) or np.array_equal(out, image[:, ::-1])
    np.testing.assert_array_equal(augment.mirror(images, rng, 1.0), images[:, :, ::-1])


def test_mirror_follows_its_probability():
    images = np.zeros((4000, 1, 2, 1), np.uint8)
    images[:, :, 0] = 1
    mirrored = augment.mirror(images, np.random.default_rng(0), 0.25)[:, 0, 1, 0].mean()
    assert abs(mirrored - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)


def photometric_by_pixel(image, u, brightness, contrast, saturation, hue):
    """The formulas of the docstring for one image, in float64, with the standard library's colour conversion."""
    x = np.clip(image / 255 + brightness * u[0], 0, 1)
    for pixel in x.reshape(-1, 3):
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        pixel[:] = colorsys.hsv_to_rgb((h + hue * u[2]) % 1, min(s * (1 + saturation * u[1]), 1), v)
    mean = x.mean(axis=(0, 1))
    return 255 * np.clip((x - mean) * (1 + contrast * u[3]) + mean, 0, 1)


@pytest.mark.parametrize(
    "strengths", [(0.3, 0, 0, 0), (0, 0.8, 0, 0), (0, 0, 0.9, 0), (0, 0, 0, 0.5), (32 / 255, 0.5, 0.5, 0.2)]
)
def test_photometric_distortion_agrees_with_a_pixel_by_pixel_computation(strengths):
    images = batch(np.random.default_rng(5), (8, 5, 4, 3))
    images[:, 0] = images[:, 0, :, :1]  # grey pixels have no hue
    images[:, 1, 0] = 0
    out = augment.photometric_distortion(images, np.random.default_rng(6), *strengths)
    draws = np.random.default_rng(6).uniform(-1, 1, size=(8, 4))
    expected = np.stack([photometric_by_pixel(image, u, *strengths) for image, u in zip(images, draws)])
    assert np.max(np.abs(out - expected)) < 0.5 + 1e-3  # rounding to whole levels, and float32
    assert np.any(out != images)


def test_photometric_distortion_of_strength_zero_changes_nothing():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    out = augment.photometric_distortion(images, np.random.default_rng(0), 0, 0, 0, 0)
    np.testing.assert_array_equal(out, images)


def test_photometric_distortion_takes_grey_images_without_colour_changes():
    images = batch(np.random.default_rng(0), (3, 4, 5, 1))
    augment.photometric_distortion(images, np.random.default_rng(1), saturation=0, hue=0)
    with pytest.raises(ValueError, match="3 channels"):
        augment.photometric_distortion(images, np.random.default_rng(1))


def test_compose_applies_the_steps_in_order_with_one_generator():
    images = batch(np.random.default_rng(0))
    rng, by_hand = np.random.default_rng(7), np.random.default_rng(7)
    out = augment.compose(STEPS["crop"], augment.mirror)(images, rng)
    np.testing.assert_array_equal(out, augment.mirror(STEPS["crop"](images, by_hand), by_hand))
    assert augment.compose()(images, rng) is images


@given(seed=st.integers(0, 2**32 - 1), shape=st.tuples(*[st.integers(1, 6)] * 4))
def test_channel_statistics_are_those_of_the_pixels_in_zero_to_one(seed, shape):
    images = batch(np.random.default_rng(seed), shape)
    mean, std = augment.channel_statistics(images)
    x = images / 255
    np.testing.assert_allclose(mean, x.mean(axis=(0, 1, 2)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(std, x.std(axis=(0, 1, 2)), rtol=1e-12, atol=1e-12)


def test_channel_statistics_do_not_cancel_on_bright_images_of_little_contrast():
    images = np.full((60_000, 1, 2, 2), 255, np.uint8)  # the squares at one position do not fit 32 bits
    images[0, 0, 0] = 254
    m = 60_000 * 2
    _, std = augment.channel_statistics(images)
    np.testing.assert_allclose(std, np.sqrt((m - 1) / m**2) / 255, rtol=1e-14)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-14)])
def test_normalize_is_the_formula_in_the_wanted_dtype(dtype, tolerance):
    images = batch(np.random.default_rng(0))
    mean, std = [0.49, 0.48, 0.45], [0.25, 0.2, 0.3]
    out = augment.normalize(images, mean, std, dtype)
    assert out.dtype == dtype and out.flags.c_contiguous
    np.testing.assert_allclose(out, (images / 255 - mean) / std, rtol=0, atol=tolerance)
    repeated = augment.normalize(images, [0.5] * 3, [0.25] * 3, dtype)
    np.testing.assert_array_equal(augment.normalize(images, 0.5, 0.25, dtype), repeated)


def test_normalized_by_their_own_statistics_images_have_mean_zero_and_variance_one():
    images = batch(np.random.default_rng(0), (20, 9, 8, 3))
    x = augment.normalize(images, *augment.channel_statistics(images), np.float64)
    np.testing.assert_allclose(x.mean(axis=(0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(x.var(axis=(0, 1, 2)), 1, rtol=1e-12)


IMAGES = np.zeros((2, 4, 4, 3), np.uint8)
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: augment.random_crop(IMAGES.astype(np.float32), 4, RNG), r"uint8 array \(N, H, W, C\), got float32"),
        (lambda: augment.random_crop(IMAGES[0], 4, RNG), r"got uint8 of shape \(4, 4, 3\)"),
        (lambda: augment.random_crop(IMAGES, -1, RNG), "pad must be at least 0"),
        (lambda: augment.random_crop(IMAGES, 1, 7), "rng must be a np.random.Generator"),
        (lambda: augment.mirror(IMAGES, RNG, 1.5), "probability must be from 0 to 1, got 1.5"),
        (lambda: augment.mirror(IMAGES, RNG, float("nan")), "probability"),
        (lambda: augment.mirror(IMAGES, np.random), "rng must be"),
        (lambda: augment.photometric_distortion(IMAGES, RNG, contrast=-0.1), "contrast must be from 0 to 1"),
        (lambda: augment.photometric_distortion(IMAGES, RNG, hue=0.6), "hue must be from 0 to 0.5"),
        (lambda: augment.photometric_distortion(IMAGES, 3), "rng must be"),
        (lambda: augment.channel_statistics(IMAGES[:0]), "at least one pixel"),
        (lambda: augment.normalize(IMAGES / 255, 0.5, 0.5), "got float64"),
        (lambda: augment.normalize(IMAGES, [0.5, 0.5], 0.5), r"mean .* 3 channels, got shape \(2,\)"),
        (lambda: augment.normalize(IMAGES, 0.5, [0.2, 0.0, 0.2]), "std must be positive"),
        (lambda: augment.normalize(IMAGES, np.nan, 0.5), "mean must be finite"),
        (lambda: augment.normalize(IMAGES, 0.5, 0.5, np.int32), "dtype must be float32 or float64"),
    ],
)
def test_bad_input_gets_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
