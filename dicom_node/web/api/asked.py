"""What a list is asked for: how many, from where on; and the cursor that says where the next part begins."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Path, Query
from starlette.exceptions import HTTPException

from dicom_node.domain import is_uid, plain

K = TypeVar("K", int, str)
_Text = r"^[^\x00-\x1f\x7f]*$"
_MOST = 2**53 - 1  # the largest whole number that every JSON reader keeps

Limit = Annotated[int, Query(ge=1, le=500, description="At most so many.")]
Cursor = Annotated[str, Query(max_length=128, description="`next` of the part before.", pattern=_Text)]
Name = Annotated[str, Query(max_length=64, pattern=_Text)]
Since = Annotated[float, Query(ge=0, le=1e11, description="Seconds since the epoch.")]
Uid = Annotated[str, Path(max_length=64, pattern=r"^[0-9]+(\.[0-9]+)*$", description="A Study Instance UID.")]
UidWanted = Annotated[str, Query(max_length=64, pattern=r"^([0-9]+(\.[0-9]+)*)?$", description="Only of this study.")]
Key = Annotated[int, Path(ge=1, le=_MOST)]
After = Annotated[int, Query(ge=0, le=_MOST, description="Only events of higher numbers.")]


def parted(rows: Sequence[Any], limit: int, cursor: Callable[[Any], str]) -> dict[str, Any]:
    """Return one part of a list; rows: one more than the limit, if there are more."""
    shown = rows[:limit]
    return {"items": plain(list(shown)), "next": cursor(shown[-1]) if len(rows) > limit else None}


def place(cursor: str, kind: Callable[[str], K]) -> tuple[float, K] | None:
    """Read a cursor: a moment and a number or UID; None where there is none.

    Raises
    ------
    HTTPException: it is none (422).
    """
    if not cursor:
        return None
    at, _, key = cursor.partition(":")
    try:
        found = float(at), kind(key)
    except ValueError:
        raise _no_cursor() from None
    if not abs(found[0]) <= 1e12 or (isinstance(found[1], int) and not 0 <= found[1] <= _MOST):
        raise _no_cursor()
    return found


def number(cursor: str) -> int:
    """Read a cursor that is a number; 0 where there is none."""
    if not cursor:
        return 0
    if not (cursor.isascii() and cursor.isdecimal() and 0 < int(cursor) <= _MOST):
        raise _no_cursor()
    return int(cursor)


def uid(text: str) -> str:
    """Return a UID.

    Raises
    ------
    ValueError: it is none.
    """
    if not is_uid(text):
        raise ValueError("no UID")
    return text


def _no_cursor() -> HTTPException:
    return HTTPException(422, "query.cursor: it is not one that the API gave")
