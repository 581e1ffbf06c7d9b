"""The two frozen encoders of molecules, one file per published model."""
