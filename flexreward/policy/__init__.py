"""A policy: prompts in, completions out. What is sampled here is judged elsewhere."""
