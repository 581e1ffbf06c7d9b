"""Long jobs: run, shown, estimated, counted."""
