"""flexreward: a judge that thinks before it scores, and whose scores can be used as rewards."""

__version__ = "0.1.0"
