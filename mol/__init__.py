"""Molecules: Mol-LLaMA, its judge made by exchanging the LLaMA alone, and the PAMPA task."""
