"""Pictures as bytes: JPEG, PNG, GIF, one or many."""

import io
from collections.abc import Iterable

from PIL import Image

from dicom_node.domain import Unsuitable

_LARGEST_JPEG = 65500  # of libjpeg
JPEG, PNG, GIF = "image/jpeg", "image/png", "image/gif"


def coded(picture: Image.Image, kind: str, *, quality: int = 85) -> bytes:
    """Return a picture in a file format.

    kind: `JPEG`, `PNG` or `GIF`.

    Raises
    ------
    Unsuitable: the format has no pictures of that size.
    """
    into = io.BytesIO()
    if kind == JPEG and max(picture.size) > _LARGEST_JPEG:
        raise Unsuitable(f"JPEG has at most {_LARGEST_JPEG} rows and columns", hint="Ask for image/png, or for a smaller viewport.")
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
