"""A picture in the terminal itself, where the terminal says that it can: Kitty's graphics protocol, or iTerm2's inline images."""

import base64
import os
import sys
from pathlib import Path

_CHUNK = 4096  # of Kitty's protocol, in characters


def show_inline(picture: Path) -> bool:
    """Show a PNG file and say whether it was shown: only where a person looks, at a terminal that can."""
    told = inline(picture.read_bytes(), os.environ) if sys.stdout.isatty() and picture.is_file() else ""
    if told:
        sys.stdout.write(told + "\n")
    return bool(told)


def inline(png: bytes, environment: "os._Environ[str] | dict[str, str]") -> str:
    """Return what makes a terminal show a PNG; empty where it names itself as none of those that can."""
    program, term = environment.get("TERM_PROGRAM", ""), environment.get("TERM", "")
    data = base64.b64encode(png).decode()
    if program in ("iTerm.app", "WezTerm"):
        return f"\x1b]1337;File=inline=1;size={len(png)}:{data}\a"
    if "kitty" in term or program == "ghostty":
        chunks = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
        first = "f=100,a=T,"  # a PNG, to be shown where the cursor is
        more = (f"{first if not number else ''}m={int(number < len(chunks) - 1)};{chunk}" for number, chunk in enumerate(chunks))
        return "".join(f"\x1b_G{one}\x1b\\" for one in more)
    return ""
