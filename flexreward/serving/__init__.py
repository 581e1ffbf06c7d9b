"""The judge behind HTTP, on Ray Serve. Ray is imported here and nowhere above."""
