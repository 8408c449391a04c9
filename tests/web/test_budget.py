"""The memory that requests may take, with a clock of its own."""

import pytest

from metronome.errors import MemoryLimitReached, RequestTimeout
from metronome.web.budget import SMALL_MAX_BYTES, ByteBudget

MIB = 2**20


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_large_requests_leave_the_reserve_of_small_ones() -> None:
    budget = ByteBudget(64 * MIB)
    leases = [budget.open(f"192.0.2.{number}") for number in range(6)]
    for lease in leases:
        lease.resize(8 * MIB)
    with pytest.raises(MemoryLimitReached, match="all memory that they may take"):
        budget.open("198.51.100.1").resize(SMALL_MAX_BYTES + 1)
    budget.open("198.51.100.1").resize(SMALL_MAX_BYTES)
    assert budget.used_bytes == 48 * MIB + SMALL_MAX_BYTES
    leases[0].release()
    budget.open("198.51.100.1").resize(8 * MIB - SMALL_MAX_BYTES)


@pytest.mark.parametrize("addresses", [("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::ffff:1")])
def test_a_client_holds_at_most_an_eighth(addresses: tuple[str, str]) -> None:
    budget = ByteBudget(64 * MIB)
    first, second = map(budget.open, addresses)
    first.resize(6 * MIB)
    second.resize(2 * MIB)
    with pytest.raises(MemoryLimitReached, match="this client's address"):
        second.resize(2 * MIB + 1)
    assert second.size == 2 * MIB
    budget.open("2001:db8:0:1::1").resize(8 * MIB)


def test_a_request_that_grows_moves_out_of_the_reserve_and_back() -> None:
    budget = ByteBudget(64 * MIB)
    lease = budget.open("192.0.2.1")
    for size in (SMALL_MAX_BYTES, MIB, SMALL_MAX_BYTES, 8 * MIB, 0):
        lease.resize(size)
        assert budget.used_bytes == size


def test_the_largest_request_always_fits() -> None:
    budget = ByteBudget(MIB, largest_request_bytes=32 * MIB)
    budget.open("192.0.2.1").resize(32 * MIB)


def test_slow_bodies_are_dropped_while_memory_is_short() -> None:
    clock = Clock()
    budget = ByteBudget(64 * MIB, clock=clock)
    slow, quick = budget.open("192.0.2.1"), budget.open("192.0.2.2")
    slow.resize(49_000)
    clock.now = 5.5
    slow.check_pace()
    # The reserve is short as well, once many hold a little each.
    others = [budget.open(f"198.51.100.{number % 200}") for number in range(140)]
    for lease in others:
        lease.resize(SMALL_MAX_BYTES)
    with pytest.raises(RequestTimeout, match="slower than 10000 bytes per second"):
        slow.check_pace()
    quick.resize(60_000)
    quick.check_pace()
    slow.restart()
    slow.check_pace()
