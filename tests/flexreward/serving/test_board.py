"""What is counted, how counts of several processes add up, and how Prometheus reads them."""

import pickle
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flexreward.serving.board import BIN_S, COUNTS, FRESH_S, GAUGES, Board, Tally, exposition
from flexreward.serving.phases import Phase
from flexreward.types import JudgeRequest, Judgment, OrderOutcome, Reason, Reply, Scale, Unscored, Verdict, Vote

NOW = 1_000_000.0
SCALE = Scale(low=0, high=10)
REQUEST = JudgeRequest(prompt="2+2?", completions=("4", "5"), id="q")


def judgment(*scores, kept=False, seconds=0.3):
    """Of two orders that see ``scores``, one pair an order; without any, unscored."""
    if not scores:
        failure = Unscored(reason=Reason.DEADLINE)
        return Judgment(
            request_id="q",
            template="pair",
            outcome=failure,
            orders=(OrderOutcome(order=(0, 1), outcome=failure, votes=()),),
            judge="f",
            seconds=seconds,
        )
    orders = []
    for order, pair in zip(((0, 1), (1, 0)), scores, strict=False):
        verdict = Verdict(scores=pair, scale=SCALE)
        reply = Reply(text="<think>Hm.</think>", completion_tokens=7)
        orders.append(OrderOutcome(order=order, outcome=verdict, votes=(Vote(outcome=verdict, reply=reply),)))
    return Judgment(
        request_id="q",
        template="pair",
        outcome=orders[0].outcome,
        orders=tuple(orders),
        judge="f",
        cached=kept,
        seconds=seconds,
    )


def board_of(*judgments, source="a", board=None, now=NOW):
    tally = Tally(clock=lambda: now)
    for one in judgments:
        tally.judged("main", REQUEST, one)
    board = board or Board()
    board.add(source, pickle.loads(pickle.dumps(tally.take({"main": 3}))), now=now)  # noqa: S301  # our own
    return board


def samples(board):
    families = list(text_string_to_metric_families(exposition(board).decode()))
    found = {(one.name, tuple(sorted(one.labels.items()))): one.value for f in families for one in f.samples}
    return families, found


def test_a_crowd_is_the_copies_heard_of_and_of_them_those_that_have_something_to_do():
    board = board_of(judgment())
    assert board.crowd() == (1, {"main": 1})
    board.add("idle", Tally().take({"main": 0}), now=NOW)
    assert board_of(judgment(), source="b", board=board).crowd() == (3, {"main": 2})


def test_a_judgment_is_counted_once_under_every_name():
    board = board_of(judgment((8.0, 2.0), (8.0, 2.0)), judgment((8.0, 2.0), (2.0, 8.0)), judgment())
    assert board.by("flexreward_judgments_total", "main", "status") == {"scored": 2, "unscored": 1}
    assert board.by("flexreward_unscored_total", "main", "reason") == {"deadline": 1}
    assert board.by("flexreward_orders_total", "main", "flipped") == {"no": 1, "yes": 1}
    assert board.by("flexreward_replies_total", "main", "read") == {"yes": 4}
    assert board.total("flexreward_completion_tokens_total", "main") == 28


def test_what_was_found_in_the_store_costs_no_tokens():
    board = board_of(judgment((8.0, 2.0), (8.0, 2.0), kept=True))
    assert board.total("flexreward_kept_total", "main") == 1
    assert board.total("flexreward_completion_tokens_total", "main") == 0


def test_the_counts_of_two_processes_are_those_of_one_that_did_both():
    some, others = [judgment((8.0, 2.0), (8.0, 2.0))], [judgment(), judgment((1.0, 2.0), (1.0, 2.0))]
    apart = board_of(*others, source="b", board=board_of(*some))
    assert apart.counts == pytest.approx(board_of(*some, *others).counts)
    assert apart.waiting() == {"main": 6}


def test_a_tally_forgets_what_it_has_handed_on():
    tally = Tally(clock=lambda: NOW)
    tally.judged("main", REQUEST, judgment())
    assert tally.take({}).counts
    assert not tally.take({}).counts


def test_a_copy_that_is_heard_of_no_more_has_nothing_waiting():
    board = board_of(judgment())
    board_of(source="b", board=board, now=NOW + FRESH_S + 1)
    assert board.waiting() == {"main": 3}
    assert board.told(now=NOW)["ingress_copies"] == 1


def test_the_history_holds_ten_minutes_and_tells_rates():
    board = board_of(judgment(seconds=2.0), judgment((8.0, 2.0), (8.0, 2.0), seconds=1.0))
    told = board.told(now=NOW)["history"]
    assert len(told) * BIN_S == 600
    assert told[-1] == {"ago_s": 0, "scored": 1 / BIN_S, "unscored": 1 / BIN_S, "seconds": 1.5}
    board_of(source="b", board=board, now=NOW + 700)
    assert all(point["scored"] == 0 for point in board.told(now=NOW + 700)["history"])


def test_the_last_verdicts_stand_newest_first_with_what_the_judge_wrote():
    board = board_of(judgment((8.0, 2.0), (8.0, 2.0)))
    board_of(judgment(), source="b", board=board, now=NOW + 1)
    newest, oldest = board.told(now=NOW)["verdicts"]
    assert newest["reason"] == "deadline"
    assert newest["rewards"] == (None, None)
    assert oldest["rewards"] == (0.8, 0.2)
    assert oldest["reasoning"] == "<think>Hm.</think>"


def test_prometheus_reads_every_count_by_the_name_that_is_documented():
    tally = Tally(clock=lambda: NOW)
    tally.refused("main")
    board = board_of(judgment((8.0, 2.0), (2.0, 8.0)), judgment(), judgment((8.0, 2.0), (8.0, 2.0), kept=True))
    board.add("a", tally.take({"main": 3}), now=NOW)
    families, found = samples(board)
    names = {f.name if f.type != "counter" else f"{f.name}_total" for f in families}
    assert names == {*COUNTS, *GAUGES}
    assert found["flexreward_refused_total", (("judge", "main"),)] == 1
    assert found["flexreward_unscored_total", (("judge", "main"), ("reason", "deadline"))] == 1
    assert found["flexreward_judgment_seconds_count", (("judge", "main"),)] == 3
    assert found["flexreward_judgment_seconds_bucket", (("judge", "main"), ("le", "0.25"))] == 0
    assert found["flexreward_judgment_seconds_bucket", (("judge", "main"), ("le", "0.5"))] == 3
    assert found["flexreward_rewards_bucket", (("judge", "main"), ("le", "0.2"))] == 2
    assert found["flexreward_waiting", (("judge", "main"),)] == 3
    assert found["flexreward_ingress_copies", ()] == 1


def test_a_judge_that_sleeps_is_shown_so():
    board = replace(board_of(judgment()), phases={"main": Phase.ASLEEP})
    assert [judge["phase"] for judge in board.told(now=NOW)["judges"]] == ["asleep"]
    assert samples(board)[1]["flexreward_awake", (("judge", "main"),)] == 0
    awake = board_of(judgment())
    assert [judge["phase"] for judge in awake.told(now=NOW)["judges"]] == ["awake"]
    assert samples(awake)[1]["flexreward_awake", (("judge", "main"),)] == 1


def test_a_server_that_has_done_nothing_has_metrics_too():
    families, _ = samples(Board())
    assert len(families) == len(COUNTS) + len(GAUGES)
