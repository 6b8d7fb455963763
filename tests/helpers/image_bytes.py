"""Image files put together byte by byte, so that what they hold is known without an image library."""

from __future__ import annotations

import struct
from collections.abc import Sequence


def tiff(
    width: int, height: int, bits: int, data: bytes, *, big: bool = False, signed: bool = False, white: int = 1
) -> bytes:
    """An uncompressed gray TIFF of one strip (TIFF 6.0, section 4); ``white`` 0: the lowest value is white."""
    order = ">" if big else "<"
    fields = [
        (256, width), (257, height), (258, bits), (259, 1), (262, white), (273, 0), (277, 1), (278, height),
        (279, len(data)), (339, 2 if signed else 1),
    ]  # fmt: skip
    start = 8 + 2 + 12 * len(fields) + 4
    entries = b"".join(
        struct.pack(f"{order}HHII", tag, 4, 1, start if tag == 273 else value)
        if tag in (273, 279)
        else struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
        for tag, value in fields
    )
    magic = b"MM\0*" if big else b"II*\0"
    return magic + struct.pack(f"{order}IH", 8, len(fields)) + entries + struct.pack(f"{order}I", 0) + data


def twelve_bits(values: Sequence[int]) -> bytes:
    """An even number of values of 12 bits, packed without gaps."""
    whole = 0
    for value in values:
        whole = whole << 12 | value
    return whole.to_bytes(len(values) * 12 // 8, "big")


def cmyk_jpeg(samples: Sequence[int]) -> bytes:
    """A JPEG of 8×8 pixels with these four samples everywhere, as Adobe's programs mark it (ITU T.81, annexes B and F).

    In a block of one value the only coefficient is its mean, times 8 by the transform and divided by the table's 8.
    """

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content

    bits = ""
    for sample in samples:
        mean = sample - 128
        size = abs(mean).bit_length()
        bits += f"{size:04b}"  # the code of the size, below: the size itself
        bits += f"{mean if mean >= 0 else mean + (1 << size) - 1:0{size}b}" if size else ""
        bits += "0"  # end of block
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    lengths = [0] * 16
    lengths[3] = 12  # twelve codes of four bits: sizes 0 to 11
    means = bytes([0x00, *lengths, *range(12)])
    lengths = [1] + [0] * 15  # one code of one bit: end of block
    others = bytes([0x10, *lengths, 0])
    return b"".join(
        [
            b"\xff\xd8",
            segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0)),  # 0: no further transform of the colors
            segment(0xDB, bytes([0, *[8] * 64])),
            segment(0xC0, struct.pack(">BHHB", 8, 8, 8, 4) + b"".join(bytes([n, 0x11, 0]) for n in range(1, 5))),
            segment(0xC4, means),
            segment(0xC4, others),
            segment(0xDA, bytes([4, *(byte for n in range(1, 5) for byte in (n, 0)), 0, 63, 0])),
            scan,
            b"\xff\xd9",
        ]
    )
