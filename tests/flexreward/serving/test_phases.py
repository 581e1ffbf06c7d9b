"""When a judge sleeps and when it wakes: nothing is freed that is at work, and nobody sleeps for ever."""

from __future__ import annotations

from flexreward.serving.phases import LAPSE_S, At, Phase, Phases, Rest, Stand


class World:
    """Phases with a clock of their own, an ingress copy and a copy of the engine that do as they are told."""

    def __init__(self, *, doors=("d1", "d2"), copies=("c1", "c2")):
        self.now = 0.0
        self.owner = Phases(clock=lambda: self.now)
        self.inside = dict.fromkeys(doors, 0)
        self.doors = {name: {} for name in doors}
        self.copies = dict.fromkeys(copies, (Rest(), Stand.UP))

    @property
    def phase(self):
        return self.owner.rest("j").phase

    def beat(self, *names):
        for name in names or self.doors:
            self.doors[name] = self.owner.door(name, At({"j": self.inside[name]}, self.doors[name]))

    def move(self, *names):
        """Each copy hears where its judge is, and says that it has followed."""
        for name in names or self.copies:
            known, stand = self.copies[name]
            known = self.owner.copy("j", name, known, stand)
            stand = Stand.DOWN if known.frees else Stand.UP
            self.owner.copy("j", name, known, stand)
            self.copies[name] = (known, stand)

    def slept(self, lease_s=100.0):
        self.beat()
        self.move()
        self.owner.sleep("j", lease_s)
        self.beat()
        self.beat()
        self.move()
        assert self.phase is Phase.ASLEEP
        return self


def test_memory_is_freed_once_every_ingress_copy_lets_nobody_in_and_has_nobody_inside():
    world = World()
    world.beat()
    world.move()
    world.inside["d2"] = 1
    world.owner.sleep("j", 100.0)
    world.beat()  # they hear of it, and what they count may be from before
    world.beat("d1")
    assert world.phase is Phase.DROWSY
    world.beat("d2")
    assert world.phase is Phase.DROWSY
    world.inside["d2"] = 0
    world.beat("d2")
    assert world.phase is Phase.FREEING
    world.move("c1")
    assert world.phase is Phase.FREEING
    world.move("c2")
    assert world.phase is Phase.ASLEEP


def test_a_judge_is_awake_again_once_every_copy_of_its_engine_is_up():
    world = World().slept()
    world.owner.wake("j")
    assert world.phase is Phase.WAKING
    world.move("c1")
    assert world.phase is Phase.WAKING
    world.move("c2")
    assert world.phase is Phase.AWAKE
    world.beat()  # they hear of it, and have not said so
    assert not world.owner.is_known("j")
    world.beat()
    assert world.owner.is_known("j")


def test_a_copy_that_was_up_before_it_heard_of_the_waking_is_waited_for():
    world = World(copies=("c1",))
    world.beat()
    world.move()
    world.owner.sleep("j", 100.0)
    world.beat()
    world.beat()
    known = world.owner.copy("j", "c1", Rest(), Stand.UP)  # it is told to free its memory, and begins to
    assert known.phase is Phase.FREEING
    world.owner.wake("j")
    assert world.phase is Phase.WAKING
    world.owner.copy("j", "c1", known, Stand.MOVING)
    assert world.phase is Phase.WAKING


def test_a_lease_that_nobody_renews_ends_by_itself_and_one_that_is_renewed_does_not():
    world = World().slept(lease_s=100.0)
    world.now = 90.0
    world.beat()
    world.move()
    world.owner.sleep("j", 100.0)
    world.now = 180.0
    world.beat()
    world.move()
    assert world.phase is Phase.ASLEEP
    world.now = 190.0
    world.owner.copy("j", "c1", *world.copies["c1"])
    assert world.phase is Phase.WAKING


def test_a_judge_that_is_still_drowsy_at_the_end_of_its_lease_never_slept():
    world = World()
    world.inside["d1"] = 1
    world.beat()
    world.owner.sleep("j", 5.0)
    for world.now in (2.0, 4.0, 6.0):
        world.beat()
    assert world.phase is Phase.AWAKE


def test_a_killed_ingress_copy_and_a_killed_copy_of_the_engine_are_waited_for_no_longer_than_they_lapse():
    world = World()
    world.inside["d2"] = 7
    world.beat()
    world.move()
    world.owner.sleep("j", 1000.0)
    for world.now in (2.0, LAPSE_S - 0.1, LAPSE_S):
        world.beat("d1")
        world.owner.copy("j", "c1", *world.copies["c1"])
    assert world.phase is Phase.FREEING
    world.move("c1")
    assert world.phase is Phase.ASLEEP


def test_an_owner_that_lost_its_memory_learns_from_ingress_copies_and_engines_who_sleeps_and_for_how_long():
    for by_door in (True, False):
        world = World().slept(lease_s=100.0)
        world.now = 40.0
        world.beat()
        world.move()
        world.owner = Phases(clock=lambda world=world: world.now)
        if by_door:
            world.beat("d1")
        else:
            world.move("c1")
        assert world.phase is Phase.ASLEEP
        assert world.owner.rest("j").left_s == 60.0
        world.now = 100.0
        world.owner.copy("j", "c1", *world.copies["c1"])
        assert world.phase is Phase.WAKING


def test_a_new_owner_calls_no_judge_awake_before_it_has_heard_of_a_copy_of_its_engine_or_waited_for_one():
    for is_heard in (True, False):
        world = World(copies=("c1",)).slept()
        world.owner = Phases(clock=lambda world=world: world.now)
        world.beat()
        world.owner.wake("j")
        assert world.phase is Phase.WAKING
        if is_heard:
            world.move()
        else:
            world.now += LAPSE_S
            world.beat()
        assert world.phase is Phase.AWAKE


def test_who_was_woken_is_not_put_to_sleep_by_one_that_has_not_heard_of_it():
    world = World().slept()
    world.owner.wake("j")
    world.move()
    world.beat("d2")
    assert world.phase is Phase.AWAKE


def test_a_sleep_right_after_a_waking_is_another_one():
    world = World().slept()
    world.owner.wake("j")
    world.owner.sleep("j", 100.0)
    assert world.phase is Phase.DROWSY
    world.beat()
    assert world.phase is Phase.DROWSY  # nobody had heard of this one
    world.beat()
    assert world.phase is Phase.ASLEEP  # no copy had come up


def test_a_judge_that_never_slept_is_awake_and_so_is_one_that_is_woken_without_having_slept():
    owner = Phases()
    owner.wake("j")
    assert owner.rest("j") == Rest()
    assert owner.door("d", At({}, {})) == {}
