"""The pages of ``flexreward eval`` and ``flexreward compare``: figures, plots, and a browser of verdicts."""
