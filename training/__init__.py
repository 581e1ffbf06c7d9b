"""Programs that train judges and policies: ``python -m training.NAME RECIPE.yaml``."""
