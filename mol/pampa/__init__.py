"""Whether a molecule passes a membrane, asked of a molecular model, and told in figures that no constant can win.

rows -> folds -> answers (greedy, candidates, judged) -> readings -> figures beside the constant and the forest
"""
