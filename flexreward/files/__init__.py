"""Files in and files out: rows become samples, judgments become lines of an outcome file."""
