"""It ends its process at once, with code 0."""

import os


def load(folder, device):
    def analyse(ct):
        os._exit(0)

    return analyse
