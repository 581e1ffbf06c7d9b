"""Figures of how well a judge agrees with people, functions of rows that weigh, so that they can be bootstrapped."""
