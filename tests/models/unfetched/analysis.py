"""Its weights are nowhere."""


def load(folder, device):
    raise AssertionError("is never called")
