"""A judge made to follow the place: outcomes in which, in a stated share of the orders, whatever was shown first wins.

The outcomes are a real judge's. In an order that is drawn by its pair's id, the better of the two scores is given to
the completion in slot 1. So one order is wrong as often as that completion is the worse one, while two orders that are
both turned name two winners.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flexreward.files.outcomes import encode, read_header, read_outcomes
from flexreward.files.whole import replaced


def write_biased(source: Path, target: Path, *, share: float) -> None:
    """The outcome file with a share of its orders turned, under a fingerprint of its own."""
    header = read_header(source)
    judge = header["judge"] | {"fingerprint": f"{header['judge']['fingerprint'][:48]}-slot1-{share:g}"}
    with replaced(target) as file:
        file.write(encode(header | {"judge": judge}))
        for row in read_outcomes(source):
            file.write(encode(biased(row, share)))


def biased(row: Mapping[str, Any], share: float) -> dict[str, Any]:
    """One row, its averaged scores those of its orders as they are now."""
    orders = [_turned(row["id"], order, share) for order in row["orders"]]
    scores = [order["scores"] for order in orders if order["scores"]]
    means = [sum(column) / len(scores) for column in zip(*scores, strict=True)] if len(scores) == len(orders) else None
    return {**row, "orders": orders, "scores": means}


def _turned(id: str, order: Mapping[str, Any], share: float) -> dict[str, Any]:
    drawn = hashlib.blake2b(f"{id} {order['order']}".encode(), digest_size=8).digest()
    if not order["scores"] or int.from_bytes(drawn) / 2**64 >= share:
        return dict(order)
    first = order["order"][0]
    better, worse = max(order["scores"]), min(order["scores"])
    return {**order, "scores": [better if index == first else worse for index in range(2)]}


def one_order(path: Path) -> Iterator[dict[str, Any]]:
    """The rows with one of their orders, drawn by their ids: what is bought where nobody looks for flips."""
    for row in read_outcomes(path):
        drawn = hashlib.blake2b(f"one {row['id']}".encode(), digest_size=1).digest()[0] % 2
        yield {**row, "orders": row["orders"][drawn : drawn + 1]}
