"""The bench of limited thoughts counts what it says."""

from flexreward.bench import met
from flexreward.bench.thinking import readable, same, thinking_bars
from flexreward.engines.scripted import ScriptedEngine
from flexreward.judge import Judge
from flexreward.templates import load_template
from flexreward.types import JudgeRequest

ASKED = [JudgeRequest(prompt=f"{i}?", completions=("a", "b")) for i in range(3)]


def judgments(*texts: str):
    """One for each of ``ASKED``, both of its orders told the same."""
    said = {f"{i}?": text for i, text in enumerate(texts)}
    engine = ScriptedEngine(lambda prompt: next(text for asked, text in said.items() if asked in prompt.user))
    return Judge(engine, load_template("pair")).judge_now(ASKED)


def test_readable_is_a_share_of_replies_and_a_pair_without_a_score_has_nobodys_winner():
    first, tie = (f"<think>.</think><answer>{a}</answer><answer>{b}</answer>" for a, b in ((9, 2), (5, 5)))
    found = judgments(first, tie, "<think>endless")
    assert readable(found) == [1, 1, 0]
    # Whatever stands first wins in both orders, so that the first is a tie as well.
    assert same(found, found) == [1, 1, 0]
    assert same(found, judgments(tie, "<think>endless", tie)) == [1, 0, 0]


def test_a_forced_answer_is_read_at_every_budget_and_a_cut_reply_only_where_it_is_long_enough():
    bars = thinking_bars(3, budgets=(1, 128), waits=(2,))
    assert list(bars) == [
        *("readable_think_1", "same_winner_think_1", "readable_think_128", "same_winner_think_128"),
        *("readable_think_64_waits_2", "readable_think_128_waits_2"),
    ]
    assert [bar.value for name, bar in bars.items() if name.startswith("readable")] == [1, 1, 1, 1]
    assert [bars[f"readable_think_{budget}"].baseline for budget in (1, 128)] == [0, 1]
    assert bars["same_winner_think_1"].baseline == 0
    assert bars["same_winner_think_128"].value == 1
    assert (bars["readable_think_1"].n, bars["same_winner_think_1"].n) == (6, 3)
    assert bars["same_winner_think_1"].goal is None
    assert all(met(name, bar) for name, bar in bars.items())
