"""Prints all that it was given and can find around it, and then raises with all of it."""

import os
import sys


def load(folder, device):
    def analyse(ct):
        found = {name: getattr(ct, name) for name in dir(ct) if not name.startswith("_") and not callable(getattr(ct, name))}
        print({name: value for name, value in found.items() if name != "array"}, sys.argv, dict(os.environ))
        raise ValueError(f"{found.keys()} {os.listdir('.')} {ct!r}")

    return analyse
