"""It is killed."""

import os
import signal


def load(folder, device):
    def analyse(ct):
        os.kill(os.getpid(), signal.SIGKILL)

    return analyse
