"""Pictures with a palette: what Chromium writes in 24 bits of colour takes a third of the bytes with 256 colours of it."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Browser

COLORS = 256

# The browser reads its own picture: no other program is needed.
PIXELS = """async png => { const bytes = Uint8Array.from(atob(png), letter => letter.charCodeAt(0));
const image = await createImageBitmap(new Blob([bytes], {type: 'image/png'}), {colorSpaceConversion: 'none'});
const canvas = new OffscreenCanvas(image.width, image.height); const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);
const data = context.getImageData(0, 0, image.width, image.height).data; let text = '';
for (let at = 0; at < data.length; at += 32768) text += String.fromCharCode(...data.subarray(at, at + 32768));
return [image.width, image.height, btoa(text)]; }"""


def palette_of(colors: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The commonest colours, and of the others those that are farthest from all that were taken: few letters are of a rare hue."""
    order = np.argsort(-counts, kind="stable")
    taken = colors[order[: COLORS // 2]]
    rest = colors[order[COLORS // 2 :]]
    if len(rest) == 0:
        return taken
    away = np.min(((rest[:, None] - taken[None]) ** 2).sum(-1), axis=1)
    while len(taken) < COLORS and away.max() > 0:
        next_one = rest[int(np.argmax(away))]
        taken = np.vstack([taken, next_one])
        away = np.minimum(away, ((rest - next_one) ** 2).sum(-1))
    return taken


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def packed(browser: Browser, png: bytes) -> bytes:
    """The same picture, each colour the nearest of 256."""
    page = browser.new_page()
    width, height, text = page.evaluate(PIXELS, base64.b64encode(png).decode())
    page.close()
    pixels = np.frombuffer(base64.b64decode(text), np.uint8).reshape(-1, 4)[:, :3].astype(np.int64)
    codes = pixels[:, 0] << 16 | pixels[:, 1] << 8 | pixels[:, 2]
    known, place, counts = np.unique(codes, return_inverse=True, return_counts=True)
    colors = np.stack([known >> 16, known >> 8 & 255, known & 255], axis=1)
    palette = palette_of(colors, counts)
    nearest = np.array([int(np.argmin(((palette - color) ** 2).sum(-1))) for color in colors], np.uint8)
    rows = np.zeros((height, width + 1), np.uint8)
    rows[:, 1:] = nearest[place].reshape(height, width)
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    return b"\x89PNG\r\n\x1a\n" + content + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)) + chunk(b"IEND", b"")
