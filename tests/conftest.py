"""Settings of the whole suite."""

import os

from hypothesis import settings

# Machines differ, and a slow one is not a failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
