"""What fits, who goes, and what waits. One byte stands for a gibibyte."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.capacity.download_queue import QueueDecision, Victim, decide_downloads
from agent.capacity.eviction_ranks import Rank, Standing, gives_way
from agent.capacity.holdings import Group, Holding
from agent.capacity.ledger import Ledger
from agent.capacity.places import Places
from agent.structs.sizes import EvictionReason, Space, in_blocks

LRU = Group(100, high_percent=90, low_percent=80, evicts=True)
GROUPS = {"lru": LRU, "kept": replace(LRU, evicts=False)}
# What `decide` takes as names of models.
Models = dict[str, Any]
LIMIT, DISK, MADE_ROOM, _ = EvictionReason


def here(tree: int, **fields: Any) -> Holding:
    """A copy of the group."""
    return replace(Holding(groups=frozenset({"lru"}), tree=tree, resting=True), **fields)


def new(size: int, **fields: Any) -> Holding:
    """A model of the group that is not here, and whose source has just told its size."""
    return replace(Holding(groups=frozenset({"lru"}), size=size, listed=True), **fields)


def gone(size: int, **fields: Any) -> Holding:
    return new(size, evicted=True, **fields)


def decide(
    candidates: str = "",
    *,
    space: Space | None = None,
    groups: dict[str, Group] | None = None,
    due: str | None = None,
    places: int = 9,
    may_evict: bool = True,
    asked: str = "",
    making_room: str | None = None,
    relieving: frozenset[str] = frozenset(),
    **models: Holding,
) -> QueueDecision:
    return decide_downloads(
        Ledger(models, GROUPS if groups is None else groups, space),
        list(candidates),
        due=candidates if due is None else due,
        places=Places(places),
        may_evict=may_evict,
        asked=asked,
        making_room=making_room,
        relieving=relieving,
    )


def evicted(found: QueueDecision) -> str:
    return "".join(eviction.key for eviction in found.evict)


def test_reservations_add_up() -> None:
    found = decide("xyz", x=new(50), y=new(60), z=new(50))
    assert found.start == ["x", "z"]
    assert found.waiting["y"].needed == 60
    assert found.waiting["y"].free == 50


def test_a_download_in_flight_counts_with_what_it_has_reserved() -> None:
    found = decide("x", a=new(0, staged=10, reserved=70), x=new(31))
    assert found.start == []
    assert found.waiting["x"].free == 30
    assert decide("x", a=new(0, staged=10, reserved=70), x=new(30)).start == ["x"]


def test_what_is_staged_already_needs_no_room_anew() -> None:
    assert decide("x", a=here(50, pinned=True), x=new(50, staged=40)).start == ["x"]


def test_a_copy_and_what_replaces_it_count_once_for_the_limit_and_both_on_the_disk() -> None:
    replaced = here(60, size=70, resting=False)
    assert decide("x", x=replaced).start == ["x"]
    found = decide("x", x=replaced, space=Space(120, 120, 0))
    assert found.waiting["x"].account.disk


OUTDATED = here(60, size=70, superseded=True, listed=True)
SMALL = Space(120, 120, 0)


def test_a_superseded_copy_goes_first_if_its_replacement_does_not_fit_beside_it() -> None:
    found = decide("x", x=OUTDATED, space=SMALL)
    assert (found.replace, found.evict, found.start) == (["x"], [], [])
    assert decide("x", x=OUTDATED, space=Space(150, 150, 0)).start == ["x"]
    # Also for a service: no service refers to the former version.
    assert decide("x", x=replace(OUTDATED, referenced=True), space=SMALL).replace == ["x"]


def test_a_superseded_copy_goes_no_sooner_than_any_other() -> None:
    for stays in (
        replace(OUTDATED, pinned=True),
        replace(OUTDATED, mounted=True),
        replace(OUTDATED, groups=frozenset({"lru", "kept"})),
    ):
        found = decide("x", x=stays, space=SMALL)
        assert (found.replace, list(found.waiting)) == ([], ["x"])
    assert list(decide("x", x=OUTDATED, space=SMALL, may_evict=False).waiting) == ["x"]
    found = decide("x", x=replace(OUTDATED, listed=False), space=SMALL)
    assert (found.replace, found.ask) == ([], ["x"])
    assert decide("x", x=OUTDATED, space=SMALL, due="").replace == []


def test_a_superseded_copy_goes_before_others_and_only_if_that_is_enough() -> None:
    others: Models = {"a": here(20), "b": here(10, referenced=True)}
    wide = {"lru": replace(LRU, limit=300)}
    found = decide("x", x=OUTDATED, **others, space=SMALL, groups=wide)
    # 30 + 70 = 100 is more than the low mark of 96.
    assert (found.replace, evicted(found)) == (["x"], "a")
    found = decide("x", x=replace(OUTDATED, size=100), **others, space=SMALL, groups=wide)
    assert (found.replace, evicted(found), list(found.waiting)) == ([], "", ["x"])


def test_a_superseded_copy_does_not_go_for_a_limit_for_which_it_counts_once() -> None:
    found = decide("x", x=OUTDATED, b=here(35, referenced=True))
    assert (found.replace, list(found.waiting)) == ([], ["x"])
    # Both bounds are passed: what another copy gives up makes the limit fit, and its own the disk.
    found = decide("x", x=OUTDATED, b=here(35), space=SMALL)
    assert (found.replace, evicted(found)) == (["x"], "b")


def test_a_superseded_copy_goes_before_others_of_its_priority() -> None:
    models: Models = {"a": here(50, superseded=True, last_used=9), "b": here(40, last_used=1)}
    assert evicted(decide("y", **models, y=new(30))) == "a"
    assert evicted(decide("y", **{**models, "b": here(40, priority=-1)}, y=new(30))) == "b"


@pytest.mark.parametrize(
    ("victim", "goes"),
    [
        pytest.param(here(60), True, id="nobody-uses-it"),
        pytest.param(here(60, mounted=True, referenced=True), False, id="mounted"),
        pytest.param(here(60, pinned=True), False, id="pinned"),
        pytest.param(here(60, referenced=True), False, id="referenced"),
        pytest.param(here(60, priority=1), False, id="more-important"),
        pytest.param(here(60, priority=-1), True, id="less-important"),
        pytest.param(here(60, resting=False), False, id="being-worked-on"),
        pytest.param(here(60, groups=frozenset({"lru", "kept"})), False, id="also-of-a-kept-group"),
        pytest.param(here(60, groups=frozenset({"lru", "?"})), False, id="also-of-an-unknown-one"),
    ],
)
def test_who_goes_for_a_first_download(victim: Holding, goes: bool) -> None:
    found = decide("x", a=victim, x=new(50))
    assert evicted(found) == ("a" if goes else "")
    assert found.start == []
    assert ("x" in found.waiting) is not goes
    assert found.making_room == ("x" if goes else None)
    if goes:
        assert found.evict == [Victim("a", MADE_ROOM, newcomer="x")]


@pytest.mark.parametrize(
    ("newcomer", "goes"),
    [
        (new(50, priority=2), False),
        (new(50, priority=2, referenced=True), True),
        (new(50, priority=1, referenced=True), False),
        (gone(50, priority=2, referenced=True), True),
        (gone(50, priority=2), False),
    ],
)
def test_what_is_referred_to_goes_only_for_what_is_more_important_and_referred_to(
    newcomer: Holding, goes: bool
) -> None:
    found = decide("x", a=here(60, referenced=True, priority=1), x=newcomer)
    assert evicted(found) == ("a" if goes else "")


def test_two_models_never_give_way_to_each_other() -> None:
    ranks = [
        Rank(referenced, priority, standing, frozenset(owners))
        for referenced in (False, True)
        for priority in range(3)
        for standing, owners in (
            (Standing.ADMINISTRATOR, ()),
            (Standing.WITHIN_SHARE, ("a",)),
            (Standing.OVER_SHARE, ("a",)),
            (Standing.OVER_SHARE, ("b",)),
        )
    ]
    for one in ranks:
        for other in ranks:
            if one.referenced or other.referenced or one.priority != other.priority:
                assert not (gives_way(one, other) and gives_way(other, one))
            if one.priority > other.priority:
                assert not gives_way(one, other)


def test_least_recently_used_goes_first_and_down_to_the_low_mark() -> None:
    models: Models = {
        "a": here(30, last_used=3),
        "b": here(30, last_used=1),
        "c": here(30, last_used=2),
    }
    # 90 + 20 - 30 = 80.
    assert evicted(decide("x", **models, x=new(20))) == "b"
    assert evicted(decide("x", **models, x=new(21))) == "bc"
    assert evicted(decide("x", **{**models, "b": here(30, last_used=2)}, x=new(20))) == "b"


def test_what_was_begun_goes_on_to_the_low_mark() -> None:
    models: Models = {"c": here(30, last_used=2), "a": here(30, last_used=3)}
    found = decide("x", **models, x=new(21), making_room="x")
    assert (evicted(found), found.start, found.making_room) == ("c", [], "x")
    # Without that, it fits as it is.
    assert decide("x", **models, x=new(21)).start == ["x"]


def test_if_the_low_mark_cannot_be_had_the_high_one_or_the_limit_will_do() -> None:
    models: Models = {"a": here(40, pinned=True), "b": here(5), "c": here(30, last_used=1)}
    assert evicted(decide("x", **models, x=new(48))) == "bc"
    assert evicted(decide("x", **models, x=new(60))) == "bc"
    assert evicted(decide("x", **models, x=new(61))) == ""


def test_nothing_goes_if_it_would_not_be_enough() -> None:
    found = decide("x", a=here(40), b=here(50, pinned=True), x=new(51))
    assert (found.evict, list(found.waiting)) == ([], ["x"])


def test_what_takes_nothing_of_what_is_full_stays() -> None:
    groups = {**GROUPS, "far": LRU}
    far = here(90, groups=frozenset({"far"}), last_used=-1)
    assert evicted(decide("x", groups=groups, a=far, b=here(60), x=new(50))) == "b"


def test_one_that_waits_holds_up_nothing_that_fits() -> None:
    found = decide("xy", a=here(50, mounted=True, referenced=True), x=new(60), y=new(50))
    assert (found.start, list(found.waiting)) == (["y"], ["x"])


def test_less_important_ones_evict_nothing_before_one_that_waits_for_pods() -> None:
    mounted = here(50, mounted=True, referenced=True)
    models: Models = {
        "a": mounted,
        "b": here(45),
        "x": new(60, referenced=True, priority=1),
    }
    found = decide("xy", **models, y=new(30))
    assert (evicted(found), list(found.waiting)) == ("", ["x", "y"])
    # One that can never have its room, or is no more important, is no reason to wait.
    models["x"] = replace(models["x"], size=101)
    assert evicted(decide("xy", **models, y=new(30))) == "b"
    models["x"] = new(60, referenced=True)
    assert evicted(decide("xy", **models, y=new(30))) == "b"


def test_nothing_starts_in_the_room_that_is_being_made() -> None:
    found = decide("xy", a=here(90), x=new(50), y=new(10))
    assert (evicted(found), found.start, found.waiting) == ("a", [], {})


def test_no_room_is_made_without_a_place_for_the_download() -> None:
    found = decide("x", places=0, a=here(90), x=new(50))
    assert (found.evict, found.start, found.waiting) == ([], [], {})


@pytest.mark.parametrize(("size", "starts"), [(30, True), (31, False)])
def test_what_nothing_refers_to_comes_back_only_under_the_low_mark(size: int, starts: bool) -> None:
    found = decide("x", a=here(50), x=gone(size))
    assert (found.start, found.evict, found.waiting) == (["x"] if starts else [], [], {})


@pytest.mark.parametrize(("size", "starts"), [(30, True), (31, False)])
def test_the_low_mark_of_the_disk_counts_too(size: int, starts: bool) -> None:
    found = decide("x", space=Space(100, 95, 30), a=here(20), x=gone(size))
    assert bool(found.start) is starts


def test_what_a_pod_waits_for_has_room_before_all_others() -> None:
    used: Models = {"referenced": True, "mounted": True, "awaited": True}
    models: Models = {"a": new(60, priority=9), "b": gone(60, **used)}
    found = decide("ab", **models)
    assert (found.start, list(found.waiting)) == (["b"], ["a"])
    # It makes its room as a model does that is referred to, and no more.
    found = decide("ab", old=here(60, last_used=1.0), **models)
    assert [victim.newcomer for victim in found.evict] == ["b"]
    found = decide("b", old=here(60, priority=1), **models)
    assert (found.evict, list(found.waiting)) == ([], ["b"])


def test_what_a_pod_waits_for_leaves_their_room_to_more_important_referenced_models() -> None:
    used: Models = {"referenced": True, "mounted": True, "awaited": True}
    models: Models = {"a": new(60, priority=9, referenced=True), "b": new(50, **used)}
    found = decide("ab", **models)
    assert (found.start, list(found.waiting)) == (["a"], ["b"])
    # Both fit, and the pod's model has the only place.
    small: Models = models | {"b": new(40, **used)}
    assert decide("ab", places=1, **small).start == ["b"]
    # The other one has no place for now, but its room.
    found = decide("abc", places=1, **models, c=new(40, **used))
    assert (found.start, list(found.waiting)) == (["c"], ["b"])
    # Its room can be made.
    found = decide("ab", old=here(60, priority=1), **models)
    assert ([victim.newcomer for victim in found.evict], found.start) == (["a"], [])
    # Its source is asked for its size first.
    assert list(decide("b", asked="a", **models).waiting) == ["b"]
    # It is not more important.
    same: Models = models | {"b": new(50, priority=9, **used)}
    assert decide("ab", **same).start == ["b"]


@pytest.mark.parametrize(
    ("important", "due"),
    [
        pytest.param(new(101, priority=9, referenced=True), "ab", id="never-fits"),
        pytest.param(new(60, priority=9, referenced=True), "b", id="waits-for-its-retry"),
        pytest.param(new(60, priority=9), "ab", id="nothing-refers-to-it"),
    ],
)
def test_what_a_pod_waits_for_leaves_no_room_to_what_does_not_take_it(
    important: Holding, due: str
) -> None:
    waited = new(50, referenced=True, mounted=True, awaited=True)
    assert decide("ab", due=due, a=important, b=waited).start == ["b"]


@pytest.mark.parametrize(
    ("awaited", "important", "before"),
    [
        pytest.param(new(1, awaited=True), new(1, priority=9), True, id="nothing-refers-to-it"),
        pytest.param(new(1, awaited=True), new(1, priority=9, referenced=True), False, id="higher"),
        pytest.param(new(1, awaited=True), new(1, referenced=True), True, id="as-important"),
    ],
)
def test_whose_room_is_held_while_it_is_made(
    awaited: Holding, important: Holding, before: bool
) -> None:
    assert awaited.has_room_before(important) is before
    assert important.has_room_before(awaited) is not before


@pytest.mark.parametrize("awaited", [True, False])
def test_among_models_alike_the_priority_decides_whose_room_is_held(awaited: bool) -> None:
    low, high = new(1, awaited=awaited), new(1, priority=1, awaited=awaited)
    assert high.has_room_before(low)
    assert high.has_room_before(high)
    assert not low.has_room_before(high)


def test_what_is_referred_to_comes_back_and_others_go() -> None:
    found = decide("x", a=here(60), x=gone(50, referenced=True))
    assert evicted(found) == "a"


def test_nothing_comes_back_into_the_room_of_what_is_tried_again() -> None:
    models: Models = {"a": here(20), "x": new(50), "y": gone(15)}
    assert decide("xy", **models, due="y").start == []
    assert decide("y", **models).start == ["y"]
    low = gone(15, referenced=True)
    high = new(80, referenced=True, priority=1)
    assert decide("xy", due="y", a=here(20), x=high, y=low).start == []
    assert decide("xy", due="y", a=here(20), x=replace(high, priority=0), y=low).start == ["y"]


def test_past_the_high_mark_models_go_until_the_low_one() -> None:
    models: Models = {
        "a": here(30, last_used=1),
        "b": here(31, last_used=2),
        "c": here(30, last_used=3),
    }
    found = decide(**models)
    assert found.evict == [Victim("a", LIMIT, group="lru")]
    assert found.relieving == {"limit/lru"}
    models["c"] = here(29, last_used=3)
    assert decide(**models).evict == []


def test_relief_that_was_begun_goes_on_to_the_low_mark() -> None:
    models: Models = {"a": here(41, last_used=1), "b": here(42, last_used=2)}
    assert decide(**models).evict == []
    assert evicted(decide(**models, relieving=frozenset({"limit/lru"}))) == "a"
    assert decide(b=here(42), relieving=frozenset({"limit/lru"})).relieving == frozenset()


@pytest.mark.parametrize(
    ("model", "goes"), [(here(95), False), (here(101), True), (here(95, referenced=True), False)]
)
def test_the_last_model_stays_between_the_high_mark_and_the_limit(
    model: Holding, goes: bool
) -> None:
    assert evicted(decide(a=model)) == ("a" if goes else "")


def test_the_last_model_goes_where_it_would_keep_the_group_above_its_limit() -> None:
    pinned = here(60, last_used=1, pinned=True)
    found = decide(a=pinned, b=here(41, last_used=2))
    assert found.evict == [Victim("b", LIMIT, group="lru")]
    assert decide(a=pinned, b=here(40, last_used=2)).evict == []


def test_the_disk_is_relieved_of_the_last_model_too_and_never_of_what_is_used() -> None:
    found = decide(space=Space(100, 95, 51), a=here(40), b=here(1, referenced=True))
    assert found.evict == [Victim("a", DISK, group="lru")]
    assert decide(space=Space(100, 95, 51), a=here(40, mounted=True, referenced=True)).evict == []


def test_without_knowing_the_pods_nothing_goes() -> None:
    found = decide("xy", may_evict=False, a=here(95), b=here(10), x=new(20), y=new(1))
    assert (found.evict, found.start, list(found.waiting)) == ([], [], ["x", "y"])


def test_what_nothing_refers_to_stays_below_the_disks_high_mark() -> None:
    space = Space(100, 100, 60)
    assert list(decide("x", space=space, x=new(31)).waiting) == ["x"]
    assert decide("x", space=space, x=new(31, referenced=True)).start == ["x"]


def test_groups_that_do_not_evict_are_not_gated_here() -> None:
    kept = frozenset({"kept"})
    # The disk's shortage is the download's own to find.
    found = decide("x", space=Space(100, 100, 60), x=new(500, groups=kept))
    assert (found.start, found.waiting) == (["x"], {})
    # It takes the room of others on the disk if that is enough.
    found = decide("x", space=Space(100, 100, 0), a=here(60), x=new(50, groups=kept))
    assert evicted(found) == "a"


def test_what_is_leaving_by_itself_is_waited_for() -> None:
    space = Space(100, 100, 0)
    leaving = Holding(tree=50, resting=True, leaving=True)
    found = decide("x", space=space, z=leaving, b=here(20), x=new(40))
    assert (found.evict, found.start, list(found.waiting)) == ([], [], ["x"])
    assert decide("x", space=space, b=here(20), x=new(40)).start == ["x"]


def test_in_blocks() -> None:
    assert [in_blocks(n) for n in (0, 1, 4096, 4097)] == [0, 4096, 4096, 8192]


# What a tenant can do.

A, B = frozenset({"team-a"}), frozenset({"team-b"})


def test_nothing_goes_before_the_source_has_told_its_size() -> None:
    unheard = replace(new(50), listed=False)
    found = decide("x", a=here(60), x=unheard)
    assert (found.ask, found.start, found.evict, found.waiting) == (["x"], [], [], {})
    assert decide("x", places=0, a=here(60), x=unheard).ask == []
    assert decide("x", due="", a=here(60), x=unheard).ask == []
    # Where nothing may go for it, there is nothing to be asked.
    found = decide("x", a=here(60, pinned=True), x=unheard)
    assert (found.ask, list(found.waiting)) == ([], ["x"])


def test_one_that_had_room_made_in_vain_waits_and_holds_up_nobody() -> None:
    models: Models = {"a": here(60), "x": new(50, referenced=True, priority=9), "y": new(45)}
    found = decide_downloads(
        Ledger(models, GROUPS),
        ["x", "y"],
        due="xy",
        places=Places(9),
        may_evict=True,
        patient={"x"},
        making_room=None,
        relieving=(),
    )
    assert (evicted(found), list(found.waiting), found.making_room) == ("a", ["x"], "y")


def test_a_lower_priority_evicts_nothing_of_a_higher_one_whoever_needs_it() -> None:
    models: Models = {name: here(22, priority=100) for name in "abcd"}
    for newcomer in (new(90, priority=-5), new(90, priority=-5, referenced=True, owners=A)):
        found = decide("x", **models, x=newcomer)
        assert (found.evict, list(found.waiting)) == ([], ["x"])


def test_the_less_important_goes_first_whenever_it_was_used() -> None:
    models: Models = {"a": here(46, priority=1), "b": here(46, last_used=9)}
    assert evicted(decide("x", **models, x=new(20, priority=1))) == "b"
    assert evicted(decide(**models)) == "b"
    # The last to go stays between the marks: it is the most important one.
    assert decide(a=here(95, priority=1)).evict == []


def test_a_namespaces_many_models_drive_out_its_own_alone() -> None:
    theirs: Models = {name: here(20, owners=A, last_used=9) for name in "abc"}
    mine: Models = {name: here(10, owners=B) for name in "pq"}
    own = here(10)
    found = decide("x", **theirs, **mine, o=own, x=new(20, owners=A))
    assert set(evicted(found)) <= set("abc")
    # One that is larger than its share gets what is its own, and what is free, and no more.
    assert decide("x", **theirs, **mine, o=own, x=new(75, owners=A)).evict == []
    # It has the priority to say more.
    assert "p" in evicted(decide("x", **theirs, **mine, o=own, x=new(75, owners=A, priority=1)))


def test_what_is_above_its_share_goes_for_one_that_is_within() -> None:
    # The share of each is 50; what is kept the longest counts first.
    theirs: Models = {n: here(20, owners=A, last_used=i) for i, n in enumerate("abcd")}
    assert evicted(decide("x", **theirs, x=new(40, owners=B))) == "ab"
    assert decide("x", **theirs, x=new(61, owners=B)).evict == []
    del theirs["d"]
    assert decide("x", **theirs, e=here(20, owners=B), x=new(51, owners=B)).evict == []
    assert evicted(decide("x", **theirs, x=new(61))) == "abc"


def test_marks_are_kept_at_the_cost_of_who_is_above_its_share() -> None:
    models: Models = {
        "p": here(20, owners=B, last_used=-9),
        "o": here(10, last_used=-8),
        "a": here(31, owners=A, last_used=1),
        "b": here(30, owners=A, last_used=2),
    }
    assert evicted(decide(**models)) == "a"


def test_a_copy_of_two_namespaces_is_above_the_shares_of_both_or_stays() -> None:
    both = here(30, owners=A | B)
    mine = here(40, owners=A, last_used=1)
    x = new(30, owners=frozenset({"team-c"}))
    # The share of each is 33: what it would rather keep is already more than that of one of them.
    assert decide("x", a=both, b=mine, p=here(20), x=x).evict == [
        Victim("b", MADE_ROOM, newcomer="x")
    ]


def test_nothing_goes_for_what_is_only_reserved() -> None:
    assert decide(a=here(40), b=here(0, reserved=60, resting=False)).evict == []
    space = Space(100, 100, 0)
    kept = new(0, groups=frozenset({"kept"}), reserved=95)
    assert decide(space=space, a=here(40), x=kept).evict == []


def test_nothing_goes_for_less_important_models_that_pods_hold() -> None:
    """Whoever has pods can have its own models mounted, up to the limit."""
    models: Models = {
        "a": here(70, mounted=True, referenced=True),
        "b": here(10),
        "c": here(15, priority=100),
        # The last one would stay in any case.
        "d": here(2, priority=101),
    }
    assert evicted(decide(**models)) == "b"
    left = models | {"b": gone(10)}
    assert evicted(decide(**left, relieving=frozenset({"limit/lru"}))) == ""
    # What is as important, or more, is no reason to stay.
    models["a"] = here(70, mounted=True, referenced=True, priority=100)
    assert evicted(decide(**models)) == "bc"
    # Nor is what the disk has not: there must be an end to it.
    full = Space(100, 95, 3)
    models["a"] = here(70, mounted=True, referenced=True)
    groups = {"lru": replace(LRU, limit=1000)}
    assert "c" in evicted(decide(**models, groups=groups, space=full))
    # Nor is what the kubelet frees itself, but not yet what it is only near to.
    assert evicted(decide(**models, groups=groups, space=kubelets(98, others=1))) == ""
    assert evicted(decide(**models, groups=groups, space=kubelets(98, others=2))) == "b"
    assert evicted(decide(**models, groups=groups, space=kubelets(98, others=5))) == "b"
    assert "c" in evicted(decide(**models, groups=groups, space=kubelets(98, others=6)))


def kubelets(mark: int, *, others: int = 0) -> Space:
    """A disk of 200 that the kubelet uses too, and of which it has 4 more to itself."""
    return Space(200, 190, others, kubelet=mark, kubelet_acts=mark + 4)


@pytest.mark.parametrize(
    ("mark", "high", "low"),
    [
        pytest.param(166, 166, 146, id="both-move-down-alike"),
        pytest.param(185, 180, 160, id="the-groups-are-lower-already"),
        pytest.param(15, 15, 0, id="next-to-nothing-is-left"),
    ],
)
def test_the_marks_of_the_disk_stay_below_the_kubelets(mark: int, high: int, low: int) -> None:
    ledger = Ledger({}, GROUPS, kubelets(mark))
    (disk,) = (account for account in ledger.accounts() if account.disk)
    assert (disk.limit, disk.high, disk.low) == (mark, high, low)
    assert disk.kubelet
    (limit,) = (account for account in ledger.accounts() if not account.disk)
    assert (limit.limit, limit.high, limit.low) == (100, 90, 80)
    assert not limit.kubelet


def test_a_copy_goes_before_a_download_passes_the_kubelets_mark() -> None:
    models: Models = {"a": here(40), "x": new(30, referenced=True)}
    assert decide("x", space=kubelets(166, others=90), **models).start == ["x"]
    found = decide("x", space=kubelets(166, others=100), **models)
    assert found.evict == [Victim("a", MADE_ROOM, newcomer="x")]


@pytest.mark.parametrize("group", ["lru", "kept", "?"])
@pytest.mark.parametrize("referenced", [True, False])
def test_a_download_of_any_group_waits_below_the_kubelets_mark(
    group: str, referenced: bool
) -> None:
    models: Models = {
        "a": here(40, pinned=True),
        "x": new(30, groups=frozenset({group}), referenced=referenced),
    }
    found = decide("x", space=kubelets(166, others=97), **models)
    assert found.start == []
    assert found.waiting["x"].account.kubelet
    assert (found.waiting["x"].needed, found.waiting["x"].free) == (30, 29)
    assert decide("x", space=kubelets(167, others=97), **models).start == ["x"]


def test_a_group_that_keeps_to_less_is_not_held_up_by_the_kubelet() -> None:
    groups = {"lru": replace(LRU, high_percent=50, low_percent=40)}
    models: Models = {"a": here(40, pinned=True), "x": new(30)}
    found = decide("x", space=kubelets(166, others=97), groups=groups, **models)
    assert not found.waiting["x"].account.kubelet


def test_copies_go_when_other_programs_pass_the_kubelets_mark() -> None:
    models: Models = {"a": here(10), "b": here(10, last_used=1.0), "c": here(10, mounted=True)}
    assert decide(space=kubelets(166, others=136), **models).evict == []
    found = decide(space=kubelets(166, others=137), **models)
    assert found.evict == [
        Victim("a", DISK, group="lru"),
        Victim("b", DISK, group="lru"),
    ]
    # They are of a group that evicts nothing.
    kept: Models = {
        key: replace(model, groups=frozenset({"kept"})) for key, model in models.items()
    }
    assert decide(space=kubelets(166, others=180), **kept).evict == []
