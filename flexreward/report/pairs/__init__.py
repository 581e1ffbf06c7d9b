"""The page of a folder of preference pairs."""
