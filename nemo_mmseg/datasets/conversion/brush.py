"""The run lengths in which Label Studio stores what was painted with a brush.

They are those of the JavaScript package ``@thi.ng/rle-pack``: a stream of bits, the highest of a
byte first. It begins with the number of values (32 bits), the bits of a value less one (5), and
four sizes less one (4 each). Runs follow: a bit that says whether one value is repeated, the number
of a size (2), the length of the run less one in as many bits, and the value, or so many values. The
values are those of an RGBA picture; alpha is the mask.
"""

from __future__ import annotations

import numpy as np

from nemo_mmseg.utils.faults import DataError, fault


def decode_brush(content: bytes, height: int, width: int, entry: str) -> np.ndarray:
    """Decode a mask.

    Args:
        content: The stream.
        height: Of the picture, in pixels.
        width: Of the picture, in pixels.
        entry: File and region, for messages.

    Returns:
        Mask ``(height, width)`` uint8, 0 or 1.

    Raises:
        DataError: The stream is of another size, or ends early.
    """
    bits = _Bits(content, entry)
    number = bits.read(32)
    if number != 4 * height * width:
        raise fault(entry, 'the number of values of rle', number, f'{4 * height * width}')
    value_size = bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(4)]
    values = np.zeros(number, np.uint32)
    at = 0
    while at < number:
        repeats = bits.read(1)
        end = at + bits.read(sizes[bits.read(2)]) + 1
        if end > number:
            raise fault(entry, 'rle', 'a run beyond the end', f'runs of {number} values in all')
        if repeats:
            values[at:end] = bits.read(value_size)
        else:
            values[at:end] = [bits.read(value_size) for _ in range(end - at)]
        at = end
    return (values.reshape(height, width, 4)[..., 3] > 0).astype(np.uint8)


class _Bits:
    """Numbers from a stream of bits."""

    def __init__(self, content: bytes, entry: str) -> None:
        self.content, self.entry, self.at = content, entry, 0

    def read(self, size: int) -> int:
        end = self.at + size
        part = self.content[self.at // 8 : -(-end // 8)]
        if end > 8 * len(self.content):
            raise self._cut_short()
        number = int.from_bytes(part, 'big') >> -end % 8 & (1 << size) - 1
        self.at = end
        return number

    def _cut_short(self) -> DataError:
        return fault(self.entry, 'rle', f'of {len(self.content)} bytes', 'more, up to its last run')
