"""Response maps become masks: instances by their centres, random walks that stop at edges."""

import numpy as np
import pytest

from nemo_mmseg.pseudo_labels.instances import find_centroids, group_centroids
from nemo_mmseg.pseudo_labels.random_walk import RandomWalk
from nemo_mmseg.pseudo_labels.refine import PUBLISHED, Refiner, RefineSettings


def strongest_edge(edge, one, two):
    """The strongest edge on the pixels less than one away from the line between two pixels."""
    (y0, x0), (y1, x1) = one, two
    dy, dx = y1 - y0, x1 - x0
    strongest = 0
    for y in range(min(y0, y1), max(y0, y1) + 1):
        for x in range(min(x0, x1), max(x0, x1) + 1):
            if (dx * (y - y0) - dy * (x - x0)) ** 2 < dy**2 + dx**2:
                strongest = max(strongest, edge[y, x])
    return strongest


def walked_by_hand(maps, edge, radius, beta, steps):
    """The power of the dense matrix of all pairs."""
    places = list(np.ndindex(edge.shape))
    matrix = np.eye(len(places))
    for i, one in enumerate(places):
        for j, two in enumerate(places):
            near = (one[0] - two[0]) ** 2 + (one[1] - two[1]) ** 2 < radius**2
            if near and i != j:
                matrix[i, j] = (1 - strongest_edge(edge, one, two)) ** beta
    matrix /= matrix.sum(0)
    spread = (maps * (1 - edge)).reshape(len(maps), -1) @ np.linalg.matrix_power(matrix, steps)
    return spread.reshape(maps.shape)


@pytest.mark.parametrize('shape', [(7, 9), (12, 4), (2, 3), (1, 1)])
def test_walks_are_powers_of_the_dense_matrix(shape):
    rng = np.random.default_rng(0)
    edge, maps = rng.random(shape) ** 2, rng.random((3, *shape))
    maps[1] = 0
    walk = RandomWalk(edge.astype(np.float32), radius=4, beta=3, steps=16)
    expected = walked_by_hand(maps, edge.astype(np.float32), 4, 3, 16)
    np.testing.assert_allclose(walk(maps), expected, rtol=1e-5, atol=1e-7)


def discs(shape=(20, 32), step=1.0):
    """Two discs whose pixels point to their centres, and what points nowhere around them."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    displacement, numbers = np.zeros((2, *shape), np.float32), np.zeros(shape, int)
    for number, centre in enumerate([(9, 8), (10, 23)], start=1):
        inside = np.hypot(y - centre[0], x - centre[1]) < 6
        numbers[inside] = number
        towards = np.stack([centre[0] - y, centre[1] - x])
        displacement[:, inside] = step * towards[:, inside]
    return displacement, numbers


@pytest.mark.parametrize('step', [1.0, 0.1])
def test_pixels_find_their_centre(step):
    displacement, numbers = discs(step=step)
    centroids = find_centroids(displacement)
    y, x = np.mgrid[:20, :32]
    assert np.abs(centroids[:, numbers == 1] - [[9], [8]]).max() <= 1
    assert np.abs(centroids[:, numbers == 2] - [[10], [23]]).max() <= 1
    np.testing.assert_array_equal(centroids[:, numbers == 0], np.stack([y, x])[:, numbers == 0])
    # a pixel near the border is not led out of the map
    outwards = np.full((2, 4, 5), -0.3, np.float32)
    assert not find_centroids(outwards).any()


def test_centres_of_one_area_are_one_instance():
    displacement, numbers = discs()
    instances = group_centroids(find_centroids(displacement), displacement)
    # what is around the discs, and each of them
    assert instances.max() == 2
    for number in (1, 2):
        assert len(np.unique(instances[numbers == number])) == 1
    assert instances[9, 8] != instances[10, 23]
    # where no displacement is short, all is one instance
    long = np.full((2, 4, 5), 3, np.float32)
    assert not group_centroids(find_centroids(long), long).any()


def responses(shape=(80, 128)):
    """A response on the left disc, and a weak one on a bit of the right one."""
    response = np.zeros(shape, np.float32)
    response[24:52, 20:44] = 0.8
    response[36:46, 88:98] = 0.6
    return response


def edges(numbers):
    """Strong edges where the number changes."""
    edge = np.zeros(numbers.shape, np.float32)
    edge[:-1][numbers[:-1] != numbers[1:]] = 0.98
    edge[:, :-1][numbers[:, :-1] != numbers[:, 1:]] = 0.98
    return edge


def test_a_response_spreads_over_its_object():
    displacement, numbers = discs()
    parts = Refiner(edges(numbers), displacement).parts(responses())
    truth = np.kron(numbers == 1, np.ones((4, 4), bool))
    iou = (parts.union & truth).sum() / (parts.union | truth).sum()
    before = (responses() > 0.3) & truth
    assert iou > 0.75 > before.sum() / ((responses() > 0.3) | truth).sum()
    assert parts.union.dtype == np.uint8 and parts.scores.max() == 1


def test_fragments_are_left_out_unless_asked_for():
    displacement, numbers = discs()
    edge, response = edges(numbers), np.zeros((80, 128), np.float32)
    response[20:28, 24:44] = 0.8
    response[50:54, 30:34] = 0.8
    shape = dict(walk_steps=1, radius=2, background=0.05)
    whole = Refiner(edge, displacement, RefineSettings(**shape, min_fragment=0))
    areas = whole.parts(response).masks.sum((1, 2))
    share = (areas.max() - 0.5) / response.size
    assert len(areas) > 1, 'there must be something to leave out'
    left = Refiner(edge, displacement, RefineSettings(**shape, min_fragment=share))
    assert left.parts(response).masks.sum((1, 2)).tolist() == [areas.max()]
    kept = Refiner(
        edge, displacement, RefineSettings(**shape, min_fragment=share, keep_fragments=True)
    ).parts(response)
    assert kept.masks.sum() == areas.sum()
    assert (kept.scores > 0).sum() == 1 and len(kept.scores) == len(areas)


def test_a_fragment_is_smaller_than_the_image():
    with pytest.raises(ValueError, match='min_fragment must be from 0 to below 1, not 5'):
        RefineSettings(min_fragment=5)


def test_no_response_gives_no_mask_unless_asked_for():
    displacement, numbers = discs()
    nothing = np.zeros((78, 127), np.float32)
    assert not Refiner(edges(numbers), displacement).parts(nothing).union.any()
    whole = Refiner(edges(numbers), displacement, PUBLISHED).parts(nothing)
    assert whole.union.all() and np.isnan(whole.scores).all() and len(whole.scores) == 1
