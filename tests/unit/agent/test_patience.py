"""How long nothing goes for those for whom room was made in vain."""

from __future__ import annotations

from agent.capacity.patience import MOST_SECONDS, PATIENCE_SECONDS, Patience

NOBODY: frozenset[str] = frozenset()
A = frozenset({"team-a"})
B = frozenset({"team-b"})


def vain(patience: Patience, key: str, owners: frozenset[str], now: float) -> None:
    patience.made(key, owners)
    patience.ended(key, now, is_success=False)


def test_a_failure_without_room_made_is_no_reason_to_wait() -> None:
    patience = Patience()
    patience.ended("x", 0, is_success=False)
    assert not patience.hinders("x", NOBODY, 0)


def test_a_model_of_the_administrator_waits_alone_and_twice_as_long_each_time() -> None:
    patience = Patience()
    vain(patience, "x", NOBODY, 0)
    assert patience.hinders("x", NOBODY, PATIENCE_SECONDS - 1)
    assert not patience.hinders("x", NOBODY, PATIENCE_SECONDS)
    assert not patience.hinders("y", NOBODY, 0)
    vain(patience, "x", NOBODY, 1000)
    assert patience.hinders("x", NOBODY, 1000 + 2 * PATIENCE_SECONDS - 1)
    for _ in range(100):
        vain(patience, "x", NOBODY, 2000)
    assert patience.hinders("x", NOBODY, 2000 + MOST_SECONDS - 1)
    assert not patience.hinders("x", NOBODY, 2000 + MOST_SECONDS)
    patience.ended("x", 2000, is_success=True)
    assert not patience.hinders("x", NOBODY, 2000)


def test_a_namespace_waits_with_all_its_models_whatever_else_goes_well() -> None:
    patience = Patience()
    vain(patience, "x", A, 0)
    assert patience.hinders("y", A, 1)
    patience.made("y", A)
    patience.ended("y", 1, is_success=True)
    assert patience.hinders("z", A, 2)
    assert not patience.hinders("z", B, 2)
    # With one that does not wait: a neighbour's trouble is not one's own.
    assert not patience.hinders("z", A | B, 2)
    vain(patience, "w", A | B, 2)
    assert patience.hinders("z", A | B, 3)


def test_to_give_up_or_delete_the_cache_is_in_vain_too() -> None:
    patience = Patience()
    patience.made("x", A)
    patience.retain({"x"}, 0)
    assert not patience.hinders("y", A, 1)
    patience.retain((), 1)
    assert patience.hinders("y", A, 2)


def test_it_is_forgotten_in_the_end() -> None:
    patience = Patience()
    for name in range(1000):
        vain(patience, f"{name}", frozenset({f"team-{name}"}), 0)
    patience.retain((), PATIENCE_SECONDS + MOST_SECONDS)
    assert patience._vain == {}
    assert patience._made == {}
