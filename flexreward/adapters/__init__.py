"""Reward functions in the shapes that training frameworks call. None of them is imported here.

a framework's arguments -> rows.py -> [RewardItem] -> source.py -> [Rewarded] -> watch.py -> the framework
"""
