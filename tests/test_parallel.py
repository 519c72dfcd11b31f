import os
from itertools import count, islice

import pytest

from cardioembed.errors import UserError
from cardioembed.parallel import spread, usable_cores


def square(number):
    return number * number


def own_process(_):
    return os.getpid()


def die(number):
    os._exit(9) if number == 3 else None
    return number


def fail(number):
    raise UserError(f"number {number} is wrong")


@pytest.mark.parametrize("num_proc", [1, 2])
def test_results_come_in_the_order_of_the_items(num_proc):
    assert list(spread(square, range(50), num_proc)) == [number**2 for number in range(50)]


def test_one_process_is_this_one_and_two_are_others():
    assert set(spread(own_process, range(3), 1)) == {os.getpid()}
    assert os.getpid() not in set(spread(own_process, range(3), 2))


def test_an_endless_stream_is_read_only_a_little_ahead():
    taken = count()
    results = spread(square, taken, 2)
    assert list(islice(results, 5)) == [0, 1, 4, 9, 16]
    results.close()
    assert next(taken) <= 5 + 2 * 2 + 1


def test_killed_process_is_advice():
    with pytest.raises(UserError, match=r"one of 2 processes was killed.*--set num_proc=1"):
        list(spread(die, range(8), 2))


def test_mistake_in_a_process_arrives_as_it_is():
    with pytest.raises(UserError, match="number 0 is wrong"):
        list(spread(fail, range(8), 2))


def test_there_is_a_core_to_use():
    assert 1 <= usable_cores() <= os.cpu_count()
