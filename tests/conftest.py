"""What every test shares: nothing leaves this machine, and caches are the user's."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
