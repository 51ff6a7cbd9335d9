import asyncio

import pytest

from agentlab.llm import via


@pytest.mark.parametrize("header", ["", "0123456789abcdef", "0123456789abcdef,fedcba98"])
def test_marks(header):
    assert ",".join(via.marks(header)) == header


@pytest.mark.parametrize("header", ["x", "0123", "0123456789abcdef,", "0123456789abcdef\r\nX: y", "0" * 33])
def test_what_is_no_mark(header):
    with pytest.raises(ValueError, match="gateway ids"):
        via.marks(header)


def test_each_task_bears_its_own_marks():
    async def through(mark: str) -> dict[str, str]:
        via.enter((mark,))
        await asyncio.sleep(0)
        return await asyncio.ensure_future(asyncio.sleep(0, via.headers()))

    async def both() -> list[dict[str, str]]:
        return await asyncio.gather(through("a" * 8), through("b" * 8))

    assert asyncio.run(both()) == [{via.HEADER: "a" * 8}, {via.HEADER: "b" * 8}]
    assert via.headers() == {}
