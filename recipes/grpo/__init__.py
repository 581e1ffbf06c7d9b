"""Reinforcement of a policy by a judge's rewards."""
