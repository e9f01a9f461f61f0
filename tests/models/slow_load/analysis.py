"""It takes for ever to load."""

import threading


def load(folder, device):
    threading.Event().wait()
