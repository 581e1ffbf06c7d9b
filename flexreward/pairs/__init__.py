"""From several completions of a prompt to the best one, and to preference pairs that survive an order flip."""
