"""The thread that runs the model: it lets waiting jobs in as rows end, and moves all rows on by one token at a time."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from flexreward.engines.batching import Job, Row, admissible, groups
from flexreward.engines.encoding import Encoder
from flexreward.engines.patterns import Patterns, Progress
from flexreward.engines.runner import Runner
from flexreward.engines.sampling import Draw, draw, odds
from flexreward.errors import EngineError
from flexreward.types import Reply, TokenLogprob

log = logging.getLogger(__name__)


class Worker:
    """Serves jobs from a queue until it is stopped. Only ``submit`` and ``stop`` are for other threads.

    Args:
        patterns: What holds replies to a pattern.
        ends: Tokens that end a turn.
        batch_size: Rows moved on together.
        prefill_size: Prompts read together.
    """

    def __init__(
        self,
        runner: Runner,
        encoder: Encoder,
        patterns: Patterns,
        *,
        ends: frozenset[int],
        batch_size: int,
        prefill_size: int,
    ) -> None:
        self._runner = runner
        self._encoder = encoder
        self._patterns = patterns
        self._ends = ends
        self.batch_size = batch_size
        self._prefill_size = prefill_size
        self._waiting: deque[Job] = deque()
        self._rows: list[Row] = []
        self._wake = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def submit(self, job: Job) -> None:
        """Queue a job. Raises EngineError after ``stop``."""
        with self._wake:
            if self._stopped:
                raise EngineError("the engine is closed")
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="flexreward-model", daemon=True)
                self._thread.start()
            self._wake.notify()

    def stop(self) -> None:
        """End the thread after the step under way. Every job that has not ended fails."""
        with self._wake:
            self._stopped = True
            self._wake.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _serve(self) -> None:
        with torch.inference_mode():
            while self._rest():
                self._forget_aborted()
                self._let_in()
                if self._rows:
                    self._guarded(self._step, {row.job for row in self._rows})
        self._fail([*self._waiting, *(row.job for row in self._rows)], "the engine was closed")
        self._rows.clear()
        self._waiting.clear()
        self._runner.release()

    def _rest(self) -> bool:
        """Wait for something to do; false when there will be nothing any more."""
        with self._wake:
            if self._rows or self._waiting or self._stopped:
                return not self._stopped
            self._runner.reset()
            self._wake.wait_for(lambda: self._waiting or self._stopped)
            return not self._stopped

    def _forget_aborted(self) -> None:
        for slot in reversed(range(len(self._rows))):
            if self._rows[slot].job.aborted:
                self._drop(slot)

    def _let_in(self) -> None:
        with self._wake:
            self._waiting = deque(job for job in self._waiting if not job.aborted)
            needs = [len(job.pending) for job in self._waiting]
            count = admissible(needs, under_way=len(self._rows), batch_size=self.batch_size)
            jobs = [self._waiting.popleft() for _ in range(count)]
        starts: dict[tuple[int, ...], list[Job]] = {}
        for job in jobs:
            starts.setdefault(job.prompt.ids[: job.prompt.num_shared], []).append(job)
        for alike in starts.values():
            for group in groups([len(job.prompt.ids) for job in alike], largest=self._prefill_size):
                together = [alike[i] for i in group]
                self._guarded(lambda together=together: self._begin(together), together)  # type: ignore[misc]

    def _begin(self, jobs: list[Job]) -> None:
        """Read the jobs' prompts, draw every reply's first token, and give slots to those that go on."""
        prefill = self._runner.read([job.prompt for job in jobs], [job.shown for job in jobs])
        rows = [Row(job=job, reply=reply, progress=self._progress(job)) for job in jobs for reply in job.pending]
        places = [b for b, job in enumerate(jobs) for _ in job.pending]
        self._draw(prefill.logits_BV if len(rows) == len(jobs) else prefill.logits_BV[places], rows)
        for b, job in enumerate(jobs):
            job.offset = prefill.offsets[b]
            going_on = [row for row in rows if row.job is job and not self._ended(row)]
            if going_on:
                self._runner.admit(prefill, b, len(going_on))
                self._rows += going_on

    def _step(self) -> None:
        logits_BV = self._runner.step(
            [row.tokens[-1] for row in self._rows],
            [row.position for row in self._rows],
            [row.job.offset for row in self._rows],
        )
        self._draw(logits_BV, self._rows)
        for slot in reversed(range(len(self._rows))):
            if self._ended(self._rows[slot]):
                self._drop(slot)

    def _drop(self, slot: int) -> None:
        self._runner.drop(slot)
        last = self._rows.pop()
        if slot < len(self._rows):
            self._rows[slot] = last

    def _progress(self, job: Job) -> Progress | None:
        return None if job.sampling.pattern is None else self._patterns.begin(job.sampling.pattern)

    def _draw(self, logits_BV: Tensor, rows: list[Row]) -> None:
        tokens = draw(
            self._allowed(logits_BV, rows),
            [Draw(sampling=row.job.sampling, reply=row.reply, place=len(row.tokens)) for row in rows],
        )
        for row, token in zip(rows, tokens, strict=True):
            row.tokens.append(token)
            if row.progress is not None:
                row.progress.add(token)
        asked = [b for b, row in enumerate(rows) if row.job.sampling.logprobs]
        if asked:
            most = max(rows[b].job.sampling.logprobs for b in asked)
            for b, found in zip(asked, odds(logits_BV[asked], [tokens[b] for b in asked], most), strict=True):
                rows[b].odds.append(found)

    def _allowed(self, logits_BV: Tensor, rows: list[Row]) -> Tensor:
        """The logits with what a row's pattern rules out at minus infinity; those of the other rows as they are."""
        held = {b: row.progress for b, row in enumerate(rows) if row.progress is not None}
        if not held:
            return logits_BV
        masks = [one.allowed_V(logits_BV.shape[-1], logits_BV.device) for one in held.values()]
        allowed_BV = logits_BV.clone()
        allowed_BV[list(held)] = logits_BV[list(held)].masked_fill(~torch.stack(masks), -torch.inf)
        return allowed_BV

    def _ended(self, row: Row) -> bool:
        """Whether the row's last token was its last; if so its reply is delivered."""
        job = row.job
        ended = row.tokens[-1] in self._ends
        ids = row.tokens[:-1] if ended else row.tokens
        stops = job.sampling.stop
        if not ended and stops:
            # Every token holds at least a byte, so the last few tokens hold whatever stop string has just come.
            last = self._encoder.decode(ids[-max(len(stop.encode()) for stop in stops) - 4 :])
            ended = any(stop in last for stop in stops)
        if not ended and len(row.tokens) < job.max_tokens:
            return False
        text = self._encoder.decode(ids, after=job.prompt.started)
        if ends := [at + len(stop) for stop in stops if (at := text.find(stop)) >= 0]:
            text = text[: min(ends)]
        whole = ended or job.sampling.is_whole(text)
        job.pending.remove(row.reply)
        job.deliver(
            Reply(
                text=job.prefix + text,
                index=row.reply,
                finish_reason="stop" if whole else "length",
                prompt_tokens=len(job.prompt.ids),
                completion_tokens=len(row.tokens),
                logprobs=self._logprobs(row),
            )
        )
        return True

    def _logprobs(self, row: Row) -> tuple[TokenLogprob, ...]:
        num = row.job.sampling.logprobs
        return tuple(
            TokenLogprob(
                text=self._encoder.decode([token]),
                logprob=found.logprob,
                top=tuple((self._encoder.decode([other]), logprob) for other, logprob in found.top[:num]),
            )
            for token, found in zip(row.tokens, row.odds, strict=False)
        )

    def _guarded(self, move: Callable[[], None], jobs: Iterable[Job]) -> None:
        """Make one of the model's moves. What goes wrong ends the jobs it was made for, not the engine."""
        try:
            move()
        except torch.OutOfMemoryError as error:
            self._make_do(jobs, str(error))
        except Exception as error:  # whatever the model raises, the other jobs and the next ones must live
            log.exception("the model failed")
            self._give_up(jobs, f"the model failed: {type(error).__name__}: {error}")

    def _make_do(self, jobs: Iterable[Job], why: str) -> None:
        """Out of memory: start everything under way again in batches of half the size; once, then give up."""
        under_way = {row.job: None for row in self._rows} | dict.fromkeys(jobs)
        again = [job for job in under_way if job.pending and not job.retried and self.batch_size > 1]
        self._give_up([job for job in under_way if job not in again], f"out of memory: {why}")
        self._rows.clear()
        self._runner.reset()
        torch.cuda.empty_cache()
        for job in again:
            job.retried = True
        self.batch_size = max(1, self.batch_size // 2)
        log.warning("out of memory: going on with batches of %d", self.batch_size)
        with self._wake:
            self._waiting.extendleft(reversed(again))

    def _give_up(self, jobs: Iterable[Job], why: str) -> None:
        failed = set(jobs)
        for slot in reversed(range(len(self._rows))):
            if self._rows[slot].job in failed:
                self._drop(slot)
        if not self._rows:
            self._runner.reset()
        self._fail(failed, why)

    def _fail(self, jobs: Iterable[Job], why: str) -> None:
        for job in jobs:
            if not job.aborted:
                job.aborted = True
                job.deliver(EngineError(why))
