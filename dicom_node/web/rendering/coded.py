"""Pictures as bytes: JPEG, PNG, GIF, one or many."""

import io
from collections.abc import Iterable

from PIL import Image

JPEG, PNG, GIF = "image/jpeg", "image/png", "image/gif"


def coded(picture: Image.Image, kind: str, *, quality: int = 85) -> bytes:
    """Return a picture in a file format.

    kind: `JPEG`, `PNG` or `GIF`.
    """
    into = io.BytesIO()
    if kind == JPEG:
        picture.save(into, format="JPEG", quality=quality)
    elif kind == PNG:
        picture.save(into, format="PNG", compress_level=1)  # speed: most are looked at once
    else:
        picture.save(into, format="GIF")
    return into.getvalue()


def moving(pictures: Iterable[Image.Image], frame_ms: float) -> bytes:
    """Return pictures as one GIF that moves."""
    into = io.BytesIO()
    first, *others = pictures
    first.save(into, format="GIF", save_all=True, append_images=others, duration=round(frame_ms), loop=0)
    return into.getvalue()
