"""Templates are found where they were planted; the correlation is the direct sum's, and for the plain case scikit-image's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.feature import match_template

from dicom_node.methods.matching import LEAST_KNOWN, correlation, match

SHAPES = [((12, 14), (4, 5)), ((7, 8, 9), (3, 2, 4))]
seeds, shapes = st.integers(0, 2**32 - 1), st.sampled_from(SHAPES)


def drawn(seed, shapes, offset=0.0):
    """Return an image, a template and weights, some of them 0."""
    rng = np.random.default_rng(seed)
    image, template = (rng.normal(offset, 1, shape) for shape in shapes)
    weights = rng.uniform(0, 1, shapes[1]) * (rng.uniform(size=shapes[1]) > 0.3)
    weights.flat[0] = 0.5
    return image, template, weights


def direct(image, template, weights, known, mean_free):
    """Return the correlation as its formula says it, place after place."""
    places = np.lib.stride_tricks.sliding_window_view(image, template.shape)
    seen = weights * np.lib.stride_tricks.sliding_window_view(known.astype(float), template.shape)
    axes = tuple(range(image.ndim, 2 * image.ndim))
    total = seen.sum(axes, keepdims=True)
    if mean_free:
        places = places - (seen * places).sum(axes, keepdims=True) / total
        template = template - (seen * template).sum(axes, keepdims=True) / total
    shared, of_image, of_template = ((seen * product).sum(axes) for product in (places * template, places**2, template * template + 0 * places))
    return np.where(total.squeeze(axes) >= LEAST_KNOWN * weights.sum(), shared / np.sqrt(of_image * of_template), 0)


@settings(deadline=None, max_examples=40)
@given(seed=seeds, shapes=shapes, mean_free=st.booleans(), holes=st.booleans(), offset=st.sampled_from([0.0, 1000.0]))
def test_it_is_the_direct_sum(seed, shapes, mean_free, holes, offset):
    """To nine digits, with weights, in two and three dimensions, with and without unknown pixels."""
    image, template, weights = drawn(seed, shapes, offset)
    known = np.random.default_rng(seed + 1).uniform(size=image.shape) > 0.2 if holes else np.ones(image.shape, bool)
    found = correlation(np.where(known, image, np.nan), template, weights=weights, known=known if holes else None, mean_free=mean_free)
    assert found == pytest.approx(direct(image, template, weights, known, mean_free), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(seed=seeds, shapes=shapes, scale=st.floats(1e-6, 1e6), mean_free=st.booleans())
def test_it_lies_between_minus_one_and_one_whatever_the_unit(seed, shapes, scale, mean_free):
    """Another unit of either image changes nothing; a negative one changes the sign."""
    image, template, weights = drawn(seed, shapes)
    found = correlation(image, template, weights=weights, mean_free=mean_free)
    assert np.abs(found).max() <= 1
    assert correlation(scale * image, template, weights=weights, mean_free=mean_free) == pytest.approx(found, abs=1e-9)
    assert correlation(image, -scale * template, weights=scale * weights, mean_free=mean_free) == pytest.approx(-found, abs=1e-9)


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_numbers_of_few_bits_lose_nothing(kind):
    """What a CT holds, squared, needs more bits than it has itself."""
    image, template, weights = drawn(0, SHAPES[1])
    image, template = (np.rint(1000 * values + 2000).astype(kind) for values in (image, template))
    exact = correlation(image.astype(np.float64), template.astype(np.float64), weights=weights, mean_free=True)
    assert np.array_equal(correlation(image, template, weights=weights, mean_free=True), exact)


@settings(deadline=None, max_examples=20)
@given(seed=seeds, shapes=shapes, offset=st.floats(-1e4, 1e4))
def test_free_of_means_an_offset_changes_nothing(seed, shapes, offset):
    image, template, weights = drawn(seed, shapes)
    found = correlation(image, template, weights=weights, mean_free=True)
    assert correlation(image + offset, template - offset, weights=weights, mean_free=True) == pytest.approx(found, abs=1e-6)


@settings(deadline=None, max_examples=20)
@given(seed=seeds, shapes=shapes)
def test_the_plain_case_is_that_of_scikit_image(seed, shapes):
    """An independent implementation: all weights alike, means taken away."""
    image, template, _ = drawn(seed, shapes, offset=50.0)
    assert correlation(image, template, mean_free=True) == pytest.approx(match_template(image, template), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(seed=seeds, shapes=shapes, data=st.data())
def test_a_planted_template_is_found_at_its_very_pixel(seed, shapes, data):
    """Made brighter, on another level and with nonsense where it has no weight: the score is 1, for nothing else matches so."""
    image, template, weights = drawn(seed, shapes)
    place = tuple(data.draw(st.integers(0, room - size)) for room, size in zip(*shapes, strict=True))
    image[tuple(slice(at, at + size) for at, size in zip(place, shapes[1], strict=True))] = np.where(weights > 0, 3 * template + 100, 7)
    scores = correlation(image, template, weights=weights, mean_free=True)
    assert np.unravel_index(scores.argmax(), scores.shape) == place and scores.max() == pytest.approx(1, abs=1e-9)
    assert match(image, template, weights=weights).place == pytest.approx(place, abs=0.5)  # refined by neighbours that are noise


@pytest.mark.parametrize("moved", [(0.0, 0.0, 0.0), (0.3, -0.2, 0.1), (-0.4, 0.45, 0.25)])
def test_a_smooth_object_is_found_between_pixels(moved):
    """Within a twentieth of a pixel, in noise of a hundredth of the object."""
    rng = np.random.default_rng(0)
    axes = np.indices((24, 26, 28))
    at = np.array([11.0, 12.0, 13.0])
    blob = np.exp(-sum((axis - centre) ** 2 for axis, centre in zip(axes, at, strict=True)) / 18)
    later = ndimage.shift(blob, moved, order=5) + rng.normal(0, 0.01, blob.shape)
    found = match(later, blob[5:18, 6:19, 7:20])
    assert found.place == pytest.approx(np.array([5.0, 6.0, 7.0]) + moved, abs=0.05)
    assert found.score > 0.97  # at the nearest whole pixel


def test_what_is_unknown_cannot_mislead():
    """A copy of the template, half of it behind what is not known, gives way to a noisy one in the open; of what is hidden nothing is said."""
    rng = np.random.default_rng(1)
    image, template = rng.normal(size=(30, 30)), rng.normal(size=(6, 6))
    image[3:9, 4:10], image[20:26, 20:26] = template, template + rng.normal(0, 0.2, (6, 6))
    known = np.ones(image.shape, bool)
    known[2:10, 4:8] = False
    scores = correlation(image, template, known=known, mean_free=True)
    assert scores[3, 4] == 0 and np.unravel_index(scores.argmax(), scores.shape) == (20, 20)
    known[:] = False
    assert not correlation(np.full(image.shape, np.nan), template, known=known, mean_free=True).any()


@pytest.mark.parametrize("mean_free", [False, True])
@pytest.mark.parametrize("level", [0.0, 1e6 / 3])
def test_what_does_not_vary_matches_nothing(mean_free, level):
    """Neither a number that is none nor one made of rounding: 0. Of the plain formula a level is a match, if it is not 0."""
    flat, template = np.full((10, 10), level), np.arange(9.0).reshape(3, 3) + 1
    alike = float(template.sum() / np.sqrt(9 * (template**2).sum())) if level and not mean_free else 0
    assert correlation(flat, template, mean_free=mean_free) == pytest.approx(np.full((8, 8), alike))
    assert correlation(np.arange(100.0).reshape(10, 10), flat[:3, :3], mean_free=True) == pytest.approx(np.zeros((8, 8)))


@pytest.mark.parametrize(
    ("image", "template", "weights", "known", "why"),
    [
        ((5, 5), (6, 2), None, None, "does not lie in an image"),
        ((5, 5), (2, 2, 2), None, None, "does not lie in an image"),
        ((5,), (2,), None, None, "does not lie in an image"),
        ((5, 5), (0, 2), None, None, "does not lie in an image"),
        ((5, 5), (2, 2), np.ones((2, 3)), None, "the template's shape"),
        ((5, 5), (2, 2), None, np.ones((4, 5), bool), "the template's shape"),
        ((5, 5), (2, 2), -np.ones((2, 2)), None, "not negative"),
        ((5, 5), (2, 2), np.zeros((2, 2)), None, "above 0"),
    ],
)
def test_what_does_not_go_together_is_refused(image, template, weights, known, why):
    with pytest.raises(ValueError, match=why):
        correlation(np.ones(image), np.ones(template), weights=weights, known=known)
