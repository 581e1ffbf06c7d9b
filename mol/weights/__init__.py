"""The published weights of Mol-LLaMA and its encoders, by key mapping into ours.

checkpoint file -> tensors (read, nothing run) -> names (published to ours) -> load (all accounted for) -> folder
"""
