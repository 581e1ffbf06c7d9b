"""Chemistry: SMILES and SDF blocks become molecules, by RDKit alone. No torch is imported here: workers start fast."""
