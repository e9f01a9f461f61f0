"""It needs what is not there."""

import a_library_that_nobody_has_written


def load(folder, device):
    return a_library_that_nobody_has_written.analyse
