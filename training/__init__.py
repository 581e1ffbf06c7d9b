"""Programs that train judges and policies: ``python -m training.NAME RECIPE.yaml``."""

import os

# TRL tells the hub which trainer runs; a training here tells nobody. Read when TRL is imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
