"""Media are made ready once, whoever asks, and kept while there is room."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from flexreward.engines.senses import Shelf, Shown


def frames(num_bytes: int) -> Shown:
    return Shown(kind="image", digest="d", width=1, frames_THWC=np.zeros((1, 1, num_bytes, 1), np.uint8))


def test_what_many_ask_for_at_once_is_made_once():
    made, go = [], threading.Event()

    def make() -> Shown:
        go.wait(5)
        made.append(threading.get_ident())
        return frames(1)

    shelf = Shelf()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(shelf.get, "a", make) for _ in range(8)]
        go.set()
        found = [one.result() for one in asked]
    assert len(made) == 1
    assert all(one is found[0] for one in found)


def test_what_cannot_be_made_is_tried_again_by_the_next():
    shelf = Shelf()

    def fail() -> Shown:
        raise ValueError("broken")

    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            shelf.get("a", fail)
    assert shelf.get("a", lambda: frames(1)).width == 1


def test_those_asked_for_longest_ago_make_room():
    shelf, made = Shelf(max_bytes=100), []

    def get(key: str) -> None:
        shelf.get(key, lambda: made.append(key) or frames(40))

    for key in ("a", "b", "a", "c", "a", "b"):
        get(key)
    assert made == ["a", "b", "c", "b"]
