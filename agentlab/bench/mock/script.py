"""A model's name is the script of its answers. Pure.

    NAME  = [LABEL "/"] SCENE ["-then-" SCENE]...    request k gets scene k, the last scene is repeated for ever
    SCENE = ACT ["-" OPTION]...

Acts:
    ok                               numbers from 0 on, one per token; JSON if a schema is asked, a call if a tool is
    tool                             calls the first tool; `calls2` calls two of them, in pieces that alternate
    document                         a whole document, even if a stream was asked for
    401, 404, 429, 500, 503...       an error with this status; 400-context, 429-quota, 400-filter say why
    refuse, reset-before             the connection is reset before the first byte of the reply
    reset-40-of-60, close-40-of-60   reset, or closed cleanly, after 40 of 60 tokens
    stall-after-10                   nothing more after 10 tokens
    silence                          no reply at all
    drip                             the first token, then a byte at a time
    comments-only                    a stream of comments for ever
    badjson-5                        token 5 is no JSON
    html                             a page of some proxy, status 200
    huge, hugeline                   a body of 200 MB; an event of 5 MB
    wrong-schema                     JSON that no sensible schema allows
    error-event                      an error inside a reply of status 200; `code429` names its code
    empty                            an answer without content
    faults20                         20 % of the requests get one of `FAULTS`, the others `ok`

Options: ttft200 and itl10 (milliseconds until token 0 and between tokens), n100 (tokens), cost0.002 (USD, reported with
the usage), dim16 (of embeddings), and for 429: ra2 (Retry-After in seconds), rams1500 (retry-after-ms), radate2 (a date
2 seconds ahead), raneg, ragarbage.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

LONGEST_NAME = 200
MOST_TOKENS = 4096
_LONGEST_DELAY = 600.0  # seconds
_TOKENS, _DIMENSIONS = 8, 8
_PACES = {"drip": 0.1, "comments": 0.02}  # seconds between bytes, and between comments, unless told by `itl`

_ACT = re.compile(
    r"(?:(?P<status>[45]\d\d)(?:-(?P<reason>context|quota|filter))?"
    r"|(?P<cut>reset|close)-(?P<at>\d{1,4})-of-(?P<of>\d{1,4})"
    r"|(?P<after>stall-after|badjson)-(?P<count>\d{1,4})"
    r"|faults(?P<percent>\d{1,3})"
    r"|(?P<alone>ok|tool|document|refuse|reset-before|silence|drip|comments-only|html|hugeline|huge|wrong-schema"
    r"|error-event|empty))(?=-|$)"
)
_OPTION = re.compile(r"(?P<key>ttft|itl|n|cost|dim|calls|code|ra|rams|radate)(?P<value>\d{1,9}(?:\.\d{1,9})?)")
# Which field of a scene an option sets, and how its number is read; the rest are waiting times.
_FIELDS: dict[str, tuple[str, Callable[[float], Any]]] = {
    "ttft": ("ttft", lambda milliseconds: milliseconds / 1000),
    "itl": ("itl", lambda milliseconds: milliseconds / 1000),
    "n": ("tokens", int),
    "cost": ("cost", float),
    "dim": ("dimensions", int),
    "calls": ("calls", int),
    "code": ("status", int),
}
# What a header may hold that is no time to wait.
_BROKEN_WAITS = {"raneg": "-5", "ragarbage": "soon"}
_SHORT = {"reset-before": "refuse", "stall-after": "stall", "comments-only": "comments"}

FAULTS = (
    "429-ra0.1", "500", "503", "refuse", "reset-4-of-8", "close-4-of-8", "stall-after-4", "silence", "drip",
    "comments-only", "badjson-4", "html", "hugeline", "error-event", "empty",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MockScene:
    """What happens to one request. Times in seconds, from the moment when the whole request was there."""

    act: str = "ok"  # as in the names, except `status`, `cut` into reset and close, `stall`, `comments` and `faults`
    ttft: float = 0.0  # until token 0
    itl: float = 0.0  # between tokens, of `drip` between bytes
    tokens: int = _TOKENS
    at: int = 0  # the token where it happens: the 40 of reset-40-of-60
    status: int = 200
    reason: str = ""  # context, quota, filter, or nothing special
    wait: tuple[str, float] | None = None  # of a 429: its kind (ra, rams, radate, or the text itself) and its length
    cost: float | None = None  # USD
    dimensions: int = _DIMENSIONS
    calls: int = 1
    share: float = 0.0  # of requests that fail, for `faults`


@lru_cache(maxsize=1024)
def parse(name: str) -> tuple[MockScene, ...]:
    """The scenes of a model's name.

    Raises:
        ValueError: the name is no script.
    """
    if len(name) > LONGEST_NAME:
        raise ValueError(f"a name can have at most {LONGEST_NAME} characters")
    return tuple(_scene(text) for text in name.rpartition("/")[2].split("-then-"))


def _scene(text: str) -> MockScene:
    match = _ACT.match(text)
    if match is None:
        raise ValueError(f"{text!r} does not begin with an action, such as ok, 500 or reset-40-of-60")
    scene = _begin(match)
    for word in text[match.end() :].split("-")[1:]:
        scene = _with_option(scene, word)
    if scene.tokens > MOST_TOKENS or scene.dimensions > MOST_TOKENS or scene.at > scene.tokens:
        raise ValueError(f"{text!r} is out of range: use at most {MOST_TOKENS} tokens, and cut within them")
    if max(scene.ttft, scene.itl) > _LONGEST_DELAY or not 0 <= scene.share <= 1 or not 1 <= scene.calls <= 8:
        raise ValueError(f"{text!r} is out of range: at most {_LONGEST_DELAY:g} s, 100 %, 8 calls")
    return scene


def _begin(match: re.Match[str]) -> MockScene:
    if match["status"]:
        return MockScene("status", status=int(match["status"]), reason=match["reason"] or "")
    if match["cut"]:
        return MockScene(match["cut"], at=int(match["at"]), tokens=int(match["of"]))
    if match["after"]:
        at = int(match["count"])
        return MockScene(_SHORT.get(match["after"], match["after"]), at=at, tokens=max(_TOKENS, at + 1))
    if match["percent"]:
        return MockScene("faults", share=int(match["percent"]) / 100)
    act = _SHORT.get(match["alone"], match["alone"])
    return MockScene(act, status=502 if act == "error-event" else 200, itl=_PACES.get(act, 0.0))


def _with_option(scene: MockScene, word: str) -> MockScene:
    if word in _BROKEN_WAITS:
        return replace(scene, wait=(_BROKEN_WAITS[word], 0.0))
    match = _OPTION.fullmatch(word)
    if match is None:
        raise ValueError(f"{word!r} is not an option; write, for example, ttft200, itl10, n100 or ra2")
    field, of = _FIELDS.get(match["key"], ("wait", lambda value: (match["key"], value)))
    return replace(scene, **{field: of(float(match["value"]))})


def scene_of(name: str, ordinal: int, seed: int) -> MockScene:
    """What happens to request `ordinal` (from 0 on) of a model; chance depends on seed, name and ordinal alone.

    Raises:
        ValueError: the name is no script.
    """
    scenes = parse(name)
    scene = scenes[min(ordinal, len(scenes) - 1)]
    if scene.act != "faults":
        return scene
    chance = random.Random(f"{seed} {name} {ordinal}")  # noqa: S311 - a script, not a secret
    if chance.random() >= scene.share:
        return replace(scene, act="ok")
    fault = parse(chance.choice(FAULTS))[0]
    return replace(fault, ttft=scene.ttft, itl=max(scene.itl, fault.itl), cost=scene.cost)
