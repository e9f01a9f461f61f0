"""Laws are tried without a stopwatch: a busy machine breaks none of them."""

from hypothesis import settings

settings.register_profile("laws", deadline=None, print_blob=True)
settings.load_profile("laws")
