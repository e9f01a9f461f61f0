"""It waits for ever, with a process of its own beside it whose number it tells."""

import subprocess
import sys
import threading


def load(folder, device):
    def analyse(ct, progress):
        other = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
        progress(0.0, str(other.pid))
        threading.Event().wait()

    return analyse
