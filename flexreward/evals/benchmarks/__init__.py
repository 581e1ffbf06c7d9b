"""One small file a benchmark, or a family of them."""
