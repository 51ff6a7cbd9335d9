"""Durations counted in buckets of equal ratio: histograms of several processes and days add up, bucket by bucket.

After DDSketch (Masson, Rim and Lee, 2019, section 2.1): with eight buckets per doubling, a quantile is within 4.5 % of
an observed duration, however many are counted.
"""

import math
from collections.abc import Mapping

_PER_DOUBLING = 8
_LOWEST, _HIGHEST = -20 * _PER_DOUBLING, 20 * _PER_DOUBLING  # about a microsecond to twelve days


def bucket_of(seconds: float) -> int:
    """Number of the bucket; zero and less fall into the lowest."""
    if seconds <= 0:
        return _LOWEST
    return min(_HIGHEST, max(_LOWEST, math.floor(math.log2(seconds) * _PER_DOUBLING)))


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """Seconds within which `share` (above 0, at most 1) of what was counted lasted; None when nothing was.

    `counts` maps buckets to numbers. The answer is the geometric middle of a bucket.
    """
    rank = share * sum(counts.values())
    if not rank:
        return None
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= rank:
            break
    return float(2 ** ((bucket + 0.5) / _PER_DOUBLING))
