"""Which copy of an engine gets a request: the one that has read its beginning, unless it has too much to do already."""

from __future__ import annotations

import random
from typing import Any

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

from flexreward.serving.routing import ordered


class JudgeRouter(ConsistentHashRouter):  # type: ignore[misc]  # ray.serve is not typed
    """Consistent hashing over the key that is the first argument of a call, bounded by load.

    Copies that were added or lost move only the keys that they hold. Without a key, the less busy of two goes first.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waiting: dict[int, Any] = {}
        """Requests that wait for a copy, each by its own metadata object.

        Serve finds them by the id of the HTTP request that they were made for (ray 2.60), and all calls made for one
        share it: of several at once, all but one would wait for ever.
        """

    def _add_pending_request_to_indices(self, pending_request: Any) -> None:
        self._waiting[id(pending_request.metadata)] = pending_request

    def _remove_pending_request_from_indices(self, pending_request: Any) -> None:
        self._waiting.pop(id(pending_request.metadata), None)

    def _get_pending_request_matching_internal_request_id(self, request_metadata: Any = None) -> Any:
        found = self._waiting.get(id(request_metadata))
        return found if found is not None and not found.future.done() else None

    def _routing_key(self, pending_request: Any) -> str | None:
        if pending_request is None or not pending_request.args or not isinstance(pending_request.args[0], str):
            return None
        return str(pending_request.args[0]) or None

    async def choose_replicas(self, candidate_replicas: Any, pending_request: Any = None) -> Any:
        if not candidate_replicas:
            return []
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
        key = self._routing_key(pending_request)
        by_id = {replica.replica_id: replica for replica in candidate_replicas}
        ring = [] if key is None else [one for one in self._lookup_ranked_replicas(key) if one in by_id]
        if key is None:
            two = random.sample(list(by_id.values()), min(2, len(by_id)))
            return [two]  # the less busy one is taken
        ring += [one for one in by_id if one not in ring]
        loads = {one: self.replica_queue_len_cache.get(one) or 0 for one in by_id}
        return [[by_id[one]] for one in ordered(ring, loads)]


class AnyRouter(JudgeRouter):
    """The less busy of two copies, whatever they have read."""

    def _routing_key(self, pending_request: Any) -> str | None:
        return None
