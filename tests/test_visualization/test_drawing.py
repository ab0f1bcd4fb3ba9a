"""The primitives of drawing."""

import numpy as np
import pytest

from nemo_mmseg.visualization.drawing import (
    add_caption,
    draw_mask,
    fit_image,
    load_font,
    make_grid,
    wrap_text,
)


def test_mask_is_blended_and_the_rest_untouched():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    mask = np.zeros((40, 50), bool)
    mask[10:20, 5:30] = True
    drawn = draw_mask(image, mask, (200, 0, 100), alpha=0.5)
    expected = np.rint(0.5 * image + 0.5 * np.array([200, 0, 100])).astype(np.uint8)
    assert np.array_equal(drawn[14:16, 9:26], expected[14:16, 9:26])
    assert np.array_equal(drawn[25:], image[25:]) and np.array_equal(drawn[:, 35:], image[:, 35:])
    assert drawn[10, 15].tolist() == [200, 0, 100] and drawn[9, 15].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    'text', ['the left one', '', 'x' * 300, 'two\nlines of words', 'Größe 猫 é 🙂', 'a ' * 200]
)
def test_lines_fit_and_lose_nothing(text: str):
    font = load_font(12)
    lines = wrap_text(text, 100, font)
    assert all(font.getlength(line) <= 100 for line in lines)
    assert ''.join(lines).replace(' ', '') == ''.join(text.split())


def test_caption_height_is_fixed_by_lines():
    image = np.full((20, 120, 3), 7, np.uint8)
    one = add_caption(image, 'word ' * 60, num_lines=2)
    two = add_caption(image, 'word', num_lines=2)
    assert one.shape == two.shape and one.shape[1] == 120
    assert np.array_equal(one[-20:], image)
    assert add_caption(image, 'word ' * 60).shape[0] > one.shape[0]


def test_grid_keeps_every_tile():
    tiles = [np.full((10 + i, 20 - i, 3), i + 1, np.uint8) for i in range(5)]
    sheet = make_grid(tiles, 2, gap=3)
    assert sheet.shape == (11 + 13 + 14 + 6, 20 + 19 + 3, 3)
    for index, tile in enumerate(tiles):
        assert (sheet[..., 0] == index + 1).sum() == tile.shape[0] * tile.shape[1]


def test_fit_only_shrinks():
    image = np.zeros((100, 50, 3), np.uint8)
    assert fit_image(image, 200) is image
    assert fit_image(image, None) is image
    assert fit_image(image, 50).shape == (50, 25, 3)
