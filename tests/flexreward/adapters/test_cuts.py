from flexreward.adapters.cuts import Cuts

END, PAD = 9, 0


def test_a_completion_that_ends_by_itself_was_not_cut():
    assert Cuts(limit=3, ends=[END]).of([[1, END], [1, 2, 3], [1, 2, END], []]) == [False, True, False, False]


def test_with_the_ends_alone_whatever_ends_otherwise_was_cut():
    assert Cuts(ends=[END, PAD]).of([[1, 2], [1, END], [PAD]]) == [True, False, False]


def test_with_the_limit_alone_ends_are_learned_from_shorter_ones():
    cuts = Cuts(limit=3)
    assert cuts.of([[1, 2, END]]) == [True]  # nothing tells END from any other token yet
    assert cuts.of([[1, END], [1, 2, END], [1, 2, 3]]) == [False, False, True]
    assert cuts.of([[1, 2, END]]) == [False]


def test_without_either_the_longest_are_held_against_the_shorter_ones():
    cuts = Cuts()
    assert cuts.of([[1, 2, 3], [4, 5, 6]]) == [False, False]
    assert cuts.of([[1, END], [1, 2, 3], [1, 2, END]]) == [False, True, False]
