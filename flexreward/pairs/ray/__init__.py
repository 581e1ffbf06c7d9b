"""Pairs on a Ray cluster: Ray Data streams the rows through workers that hold policy and judge.

One task reads the rows in order and cuts them into parts; a pool of actors draws and judges each part on the same road
as one machine does; parts are written as they end, whole or not at all, and put together in the order of the input.
"""
