"""Points with several values each, lower is better in all: who beats whom, and what a set of them covers. Pure."""

from collections.abc import Sequence
from operator import itemgetter

Point = Sequence[float]


def dominates(point: Point, rival: Point) -> bool:
    """At least as good in all values, and better in one."""
    return tuple(point) != tuple(rival) and all(a <= b for a, b in zip(point, rival, strict=True))


def front(points: Sequence[Point]) -> list[int]:
    """The places of those that no other one dominates, in their order."""
    return [index for index, point in enumerate(points) if not _is_dominated(point, points)]


def _is_dominated(point: Point, rivals: Sequence[Point]) -> bool:
    return any(dominates(rival, point) for rival in rivals)


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The volume that the points dominate, up to a reference point; what is not below it in all values adds nothing.

    By slices along the last value (Fleischer 2003, and others): exact, and quick for the tens of points of a search.
    """
    inside = sorted({tuple(p) for p in points if _is_below(p, reference)}, key=itemgetter(-1))
    if not inside:
        return 0.0
    if len(reference) == 1:
        return float(reference[0] - inside[0][0])
    ends = [*(p[-1] for p in inside[1:]), reference[-1]]
    slices: list[float] = []
    for count, (point, end) in enumerate(zip(inside, ends, strict=True), start=1):
        if end > point[-1]:
            base = hypervolume([p[:-1] for p in inside[:count]], reference[:-1])
            slices.append((end - point[-1]) * base)
    return sum(slices)


def _is_below(point: Point, reference: Point) -> bool:
    return all(a < b for a, b in zip(point, reference, strict=True))
