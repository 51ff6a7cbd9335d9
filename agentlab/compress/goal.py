"""What a compression is for: one measure to improve, and bounds on others. Read from a sentence, and no word is lost.

Each phrase ends in a slot (objective, bounds, data, device), is a filler, or is named in the refusal of the sentence.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from agentlab.errors import UsageError
from agentlab.stats.ratios import is_narrow

Verdict = Literal["meets", "undecided", "misses"]
Measure = Literal["size", "speed", "loss", "kl"]
Slot = Literal["objective", "bounds", "data", "device", "filler"]
WORDS: Mapping[Measure, str] = {
    "size": "size of the file relative to the bfloat16 base",
    "speed": "decoding speed relative to the source file in the same runtime",
    "loss": "increase in perplexity on held-out text, in the runtime",
    "kl": "KL divergence from the base on held-out text, in the runtime, in nats per token",
}
_HIGHER, _QUALITY = ("speed",), {"loss", "kl"}
Measured = Mapping[Measure, float]
Within = Mapping[Measure, Sequence[float]]
_LONGEST = 300  # characters
_BEYOND = 10.0  # what a recipe outside the bounds is worth at least: nothing inside them is worse
_MASSES = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
EXAMPLES = '"smallest with loss < 2 %", "maximise speed with < 2 % loss", "minimise kl with size < 100 MB"'
_HINT = f"For example: {EXAMPLES}."
_UNWANTED = "this would make the model worse; use smallest, fastest or best"
_ELSEWHERE = "bounds apply to the run's held-out text (`--text`), and tasks are scored with `agentlab compress eval`"

_FILLERS = (
    "a an as are base be been bfloat16 can checkpoint compress compressed compressing could deploy deployed deployment "
    "device devices do file files find get give has have having hold i in inference is it its just like llm make makes "
    "making me model models must my need needs of our please possible quantize quantized remain serving shall "
    "should stay stays still that the this to use using very want wants we weights will would you your"
)
# Phrases, their kind, the measure they name, and 1 where more of it is asked for or is better, -1 for less.
_GRAMMAR: tuple[tuple[str, str, Measure | None, int], ...] = (
    ("size|file size|model size|bytes|footprint", "noun", "size", -1),
    ("speed|speedup|throughput|fastest|faster|fast|quickest", "noun", "speed", 1),
    ("latency", "noun", "speed", -1),
    ("loss|perplexity|accuracy loss|quality loss|perplexity loss|loss of quality", "noun", "loss", -1),
    ("accuracy drop|quality drop|loss of accuracy|loss in quality|loss in accuracy", "noun", "loss", -1),
    ("quantization loss|compression loss", "noun", "loss", -1),
    ("kl|divergence|kl divergence", "noun", "kl", -1),
    ("quality|accuracy", "noun", "kl", 1),
    ("maximise|maximize|most|highest|high|increase", "verb", None, 1),
    ("minimise|minimize|least|lowest|low|reduce", "verb", None, -1),
    ("optimise|optimize|improve", "verb", None, 0),
    ("smallest|smaller|small|tiny|tiniest", "verb", "size", -1),
    ("best", "verb", "kl", 0),
    ("keep|keeping|keeps|maintain|preserve|preserving|retain|retaining", "keep", None, 0),
    ("<|<=|≤|less than|lower than|smaller than|under|below|within|at most|up to|no more than|max", "limit", None, -1),
    (">|>=|≥|more than|higher than|greater than|over|above|at least|no less than|min", "limit", None, 1),
    ("by default", "default", None, 0),
    ("compression|quantization", "compression", "size", 1),
    ("aggressive|aggressively", "aggressive", "size", 0),
    ("not noticeably dumber|not noticeably worse|no noticeable loss|without noticeable loss", "mild", None, 0),
    ("at any loss|any loss", "open", None, 0),
    ("edge|mobile|phone|phones|smartphone|embedded", "edge", None, 0),
    ("text|held-out text|held out text", "text", None, 0),
    ("and|at|but|for|on|then|while|with", "stop", None, 0),  # no noun behind one belongs to what is before it
    (_FILLERS.replace(" ", "|"), "filler", None, 0),
)
_REFUSED = {
    "largest|larger|biggest|bigger|slowest|slower|dumber|dumbest|worse|worst": _UNWANTED,
    "mmlu|arc|hellaswag|gsm8k|humaneval|winogrande|truthfulqa|wikitext|benchmark|benchmarks": _ELSEWHERE,
    "cpu|gpu|cuda|laptop|server": "speed is measured on the machine that executes the run; remove this word",
    "carbon|co2|energy|joules": "set a budget instead, such as `--carbon-budget 0.5g`",
}


def _list_meanings() -> dict[str, list[Any]]:
    """By phrase: its kind, measure and sense, and why it is refused if it is."""
    meanings: dict[str, list[Any]] = {}
    for phrases, *meaning in _GRAMMAR:
        meanings |= dict.fromkeys(phrases.split("|"), meaning)
    for words, reason in _REFUSED.items():
        meanings |= {word: ["refused", None, 0, reason] for word in words.split("|")}
    return meanings


_PHRASES = _list_meanings()
_ANY = "|".join(re.escape(phrase) for phrase in sorted(_PHRASES, key=len, reverse=True))
_TOKEN = re.compile(
    r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>%|x|[kmg]i?b)?(?![\w%]|[.,]\d)"
    rf"|(?P<phrase>{_ANY})(?:(?<!\w)|(?!\w))"
    r"|(?P<stop>[;:!?()\"'、。「」«»¿¡]|,(?!\d)|[.-](?= |$))"
    r"""|[^\s;:!?()<>=≤≥"]+?(?=[.,'"]*(?:[\s;:!?()<>=≤≥"]|$)|,\D)|\S"""
)
_ALONE: Mapping[str, Slot] = {  # the slots of kinds that need no others
    "filler": "filler", "keep": "filler", "stop": "filler", "compression": "objective", "aggressive": "objective",
    "mild": "bounds", "open": "bounds", "edge": "device", "text": "data",
}  # fmt: skip
# In sentences of the first letters of kinds, which all differ.
_BOUND = re.compile(r"(?:(?P<before>n)f*)?l(?P<number>q)(?:f*(?P<after>n)(?!f*l))?(?P<default>d)?")
_AIM = re.compile(r"v(?:[fa]*[nc])?|(?P<keep>[km]f*)?n|a")
_LOSS_OF = re.compile(r"\b(?:loss|drop) (?:of|in) (?:the )?(?:size|speed|speedup|throughput|bytes)\b")
_KEPT = ("quality", "accuracy")  # all of it, but for the bound by default
_RELATIVE = ("faster", "speedup")  # by how much, not of what: 20 % faster is 1.2x
_UNITS = {"size": ("", "%", *_MASSES), "speed": ("", "x"), "loss": ("", "%"), "kl": ("",)}


class UnreadGoalError(UsageError):
    """Rules do not understand some words of a goal; nothing that they do understand is wrong."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A measure may be at most `limit`, or at least where more is better."""

    measure: Measure
    limit: float
    in_bytes: bool = False  # of size alone
    assumed: bool = False  # the goal names no number for it

    def __str__(self) -> str:
        value = {"loss": f"{_exact(self.limit * 100)}%", "kl": _exact(self.limit), "speed": f"{_exact(self.limit)}x"}
        size = f"{_exact(self.limit / 1e6)} MB" if self.in_bytes else f"{_exact(self.limit)} of the bfloat16 base"
        side = "at least" if self.measure in _HIGHER else "at most"
        return f"{self.measure} {side} {value.get(self.measure, size)}{' by default' if self.assumed else ''}"


_DEFAULT = Bound("loss", 0.05, assumed=True)  # as the preset of that name
_AGGRESSIVE = Bound("kl", 0.3, assumed=True)  # as the preset edge


@dataclass(frozen=True, slots=True)
class Goal:
    """The measure to improve, what must hold meanwhile, and where the result is used. `str` of it is read as it is."""

    measure: Measure
    bounds: tuple[Bound, ...] = ()
    device: str = ""

    def __str__(self) -> str:
        verb = "most" if self.measure in _HIGHER else "least"
        where = f" for {self.device} devices" if self.device else ""
        loss = "" if self.measures & _QUALITY else " at any loss"
        return ", ".join([f"{verb} {self.measure}{where}{loss}", *map(str, self.bounds)])

    @property
    def measures(self) -> set[Measure]:
        return {self.measure, *(bound.measure for bound in self.bounds)}

    @property
    def bounds_kl(self) -> bool:
        """Whether its verdict needs KL on all windows: there, of the base, all distributions."""
        return any(bound.measure == "kl" for bound in self.bounds)

    def judge(self, measured: Measured, size: int, within: Within) -> dict[Bound, Verdict]:
        """Of each bound, whether it holds: for all of an interval, a part of it, or none.

        `size` is in bytes. A figure without an interval is taken as it is, as earlier versions did.
        """
        verdicts: dict[Bound, Verdict] = {}
        for bound in self.bounds:
            best, worst = _excess(bound, measured, size, within)
            verdicts[bound] = "meets" if worst <= 0 else "misses" if best > 0 else "undecided"
        return verdicts

    def verdict(self, measured: Measured, size: int, within: Within) -> Verdict:
        """Whether a recipe reaches the goal; it does not, as long as that is undecided. See `judge`."""
        verdicts = list(self.judge(measured, size, within).values())
        if self.measure == "speed" and not _knows_speed(within):
            verdicts.append("undecided")
        return "misses" if "misses" in verdicts else "undecided" if "undecided" in verdicts else "meets"

    def is_near(self, measured: Measured, size: int, within: Within) -> bool:
        """Whether more text could say that a recipe reaches the goal. See `judge`."""
        verdicts = self.judge(measured, size, within)
        undecided = {bound.measure for bound, verdict in verdicts.items() if verdict == "undecided"}
        return bool(undecided & _QUALITY) and "misses" not in verdicts.values()

    def broken(self, measured: Measured, size: int, within: Within) -> list[str]:
        return [str(bound) for bound, verdict in self.judge(measured, size, within).items() if verdict == "misses"]

    def worth(self, measured: Measured, size: int, within: Within) -> float:
        """One number for a recipe, lower is better: who does not meet the goal is behind all who do. See `judge`."""
        if self.verdict(measured, size, within) != "meets":
            return _BEYOND + sum(max(0.0, _excess(bound, measured, size, within)[1]) for bound in self.bounds)
        value = measured[self.measure]
        return min(_BEYOND, 1 / max(value, 1 / _BEYOND) if self.measure in _HIGHER else max(value, 0.0))


def _excess(bound: Bound, measured: Measured, size: int, within: Within) -> tuple[float, float]:
    """By what share of it a bound is broken at the best and the worst end of an interval; at most 0 where it holds."""
    value = float(size) if bound.in_bytes else measured[bound.measure]
    low, high = within.get(bound.measure, (value, value))
    if bound.measure in _HIGHER:
        low, high = -high, -(low if _knows_speed(within) else 0.0)
    limit = -bound.limit if bound.measure in _HIGHER else bound.limit
    return (low - limit) / max(abs(limit), 1e-9), (high - limit) / max(abs(limit), 1e-9)


def _knows_speed(within: Within) -> bool:
    """Whether its interval is narrow: nothing is chosen by a speed that is not known."""
    return is_narrow(*within["speed"]) if "speed" in within else True


def _exact(value: float) -> str:
    """A number that is read as it was, without an exponent."""
    return f"{value:.12f}".rstrip("0").rstrip(".")


def plain(text: str) -> str:
    """A sentence as it is compared: lower case, narrow signs and digits, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split()).replace(" percent", " %")


def _make_bound(noun: "_GoalToken", sign: int, number: float, unit: str) -> Bound:
    """What a noun is held to: at least (a sign of 1) or at most (-1) a number.

    Raises:
        UsageError: it limits the good side, or no recipe can meet it, or the unit does not fit.
    """
    measure, quality = noun.measure or "size", noun.measure == "kl" and noun.sign > 0
    limit = number * {"%": 0.01, **_MASSES}.get(unit, 1.0)
    if noun.text in _RELATIVE and unit == "%":
        limit, unit = 1 + limit, "x"
    limit = round(1 - limit if quality else limit, 12)  # of quality: what may be lost of it
    units = ("%",) if quality else _UNITS[measure]
    share = measure in ("size", "loss") and (not unit or (measure, unit) == ("size", "%"))
    wrong = {
        "bounds the wrong side; reverse the comparison": sign != noun.sign,
        f"cannot be checked here: {_ELSEWHERE}; bound the loss instead": noun.text == "accuracy",
        "has the wrong unit for this measure": unit not in units or noun.text == "latency",
        "cannot be met by any recipe": limit <= 0,
        "exceeds 100 %: add a unit, such as % or MB": share and limit > 1,
    }
    for reason in (reason for reason, holds in wrong.items() if holds):
        side = "at least" if sign > 0 else "at most"
        raise UsageError(f"'{noun.text} {side} {f'{number:g} {unit}'.strip()}' {reason}.", hint=_HINT)
    return Bound("loss" if quality else measure, limit, unit in _MASSES)


@dataclass(frozen=True, slots=True)
class _GoalToken:
    text: str
    kind: str  # of a phrase; or quantity, stop, unread
    measure: Measure | None = None
    sign: int = 0
    reason: str = ""  # why it is refused


def _tokens(line: str) -> Iterator[_GoalToken]:
    for match in _TOKEN.finditer(line):
        kind = "quantity" if match["number"] else "stop" if match["stop"] else "unread"
        yield _GoalToken(match[0].strip(), *(_PHRASES[match[0]] if match["phrase"] else [kind]))


def unknown(text: str) -> list[str]:
    """Its phrases that are no fillers."""
    return [token.text for token in _tokens(plain(text)) if _ALONE.get(token.kind) != "filler"]


class _Sentence:
    """Tokens, and the slot of each that has one by now."""

    def __init__(self, line: str) -> None:
        self.tokens = list(_tokens(line))
        self.shape = "".join(token.kind[0] for token in self.tokens)  # nouns of bounds are struck out of it
        self.slots = {index: _ALONE[token.kind] for index, token in enumerate(self.tokens) if token.kind in _ALONE}
        self.wrong = [f"{t.text!r}: {t.reason}." for t in self.tokens if t.kind == "refused"]
        self.wrong += [
            f"{phrase!r}: bound the measure directly, as in 'speed at least 1x'." for phrase in _LOSS_OF.findall(line)
        ]
        if fast := re.search(r"\bfast(?:er|est)? (?:compression|quantization)\b", line):
            self.wrong.append(
                f"{fast[0]!r} is ambiguous: use 'most speed' for a fast model, 'least size' for a small one."
            )

    def bounds(self) -> Iterator[Bound]:
        """All that have a sign, a number and a name, which is behind the number or before the sign."""
        for match in _BOUND.finditer(self.shape):
            index = match.start("number")
            limit, (number, unit) = self.tokens[index - 1], _TOKEN.findall(self.tokens[index].text)[0][:2]
            nouns = [at for at in (match.start("after"), match.start("before")) if at >= 0]
            if unit in _MASSES:
                nouns = [at for at in nouns if self.tokens[at].measure == "size"]
            elif not nouns:
                continue  # nobody can say of what: it is named as not understood
            noun = self.tokens[nouns[0]] if nouns else _GoalToken("size", "noun", "size", -1)
            self.slots |= dict.fromkeys([index - 1, index, *nouns[:1]], "bounds")
            self.shape = "".join("_" if at in nouns[:1] else letter for at, letter in enumerate(self.shape))
            self.slots |= {match.start("default"): "bounds"}  # of -1 if there is none, which is no place
            try:
                yield replace(_make_bound(noun, limit.sign, float(number), unit), assumed=match["default"] is not None)
            except UsageError as error:
                self.wrong.append(error.message)

    def aims(self) -> Iterator[Measure]:
        """The measures to improve: what is left of verbs and nouns."""
        for match in _AIM.finditer(self.shape):
            positions = [match.start(), match.end() - 1]
            verb, aim = (self.tokens[position] for position in positions)
            if match["keep"] is not None and (aim.measure in _QUALITY if verb.kind == "mild" else aim.text in _KEPT):
                self.slots[positions[1]] = "bounds"
            elif match["keep"] is not None:
                example = "give a bound, as in 'speed at least 1x' or 'size at most 60 %'"
                self.wrong.append(f"'{verb.text} {aim.text}': {example}.")
                self.slots[positions[1]] = "bounds"
            elif aim.measure is not None:
                if verb.kind == "verb" and aim is not verb and verb.sign not in (0, aim.sign):
                    self.wrong.append(f"'{verb.text} {aim.text}': {_UNWANTED}.")
                self.slots |= dict.fromkeys(positions if verb.kind == "verb" else positions[1:], "objective")
                yield aim.measure
            elif aim.sign == 0:  # optimise, of nothing in particular
                self.slots[positions[0]] = "filler"


def parse(text: str) -> tuple[Goal, list[tuple[str, Slot]]]:
    """The goal that a sentence states by rule, and each phrase of it with its slot.

    Raises:
        UsageError: it has no measure to improve or two, or asks for what cannot be met or is not measured.
        UnreadGoalError: nothing is wrong, but there are words that the rules do not know. Both name such words.
    """
    if len(text) > _LONGEST:
        raise UsageError(f"The goal is too long ({len(text)} characters).", hint=_HINT)
    line = _Sentence(plain(text))
    bounds, kinds, wrong = tuple(line.bounds()), {token.kind for token in line.tokens}, line.wrong
    aims = list(dict.fromkeys(line.aims()))
    unread = [t.text for index, t in enumerate(line.tokens) if index not in line.slots and t.kind != "refused"]
    if "open" in kinds and any(bound.measure in _QUALITY for bound in bounds):
        wrong.append("'any loss' contradicts the bound on the loss.")
    if len(aims) > 1 and not unread:
        wrong.append(f"{text!r} has more than one objective ({' and '.join(aims)}): keep one and bound the others.")
    if not (aims or unread or kinds & {"compression", "edge"}):
        wrong.append(f"{text!r} has no objective.")
    if unread:
        wrong.append(f"The goal {text!r} contains unknown words: {', '.join(map(repr, unread))}.")
    if wrong:
        raise (UnreadGoalError if unread and len(wrong) == 1 else UsageError)(" ".join(wrong), hint=_HINT)
    goal = Goal(aims[0] if aims else "size", bounds, "edge" if "edge" in kinds else "")
    if not goal.measures & _QUALITY and "open" not in kinds:
        goal = replace(goal, bounds=(*bounds, _AGGRESSIVE if "aggressive" in kinds else _DEFAULT))
    bounding = [token.text for index, token in enumerate(line.tokens) if line.slots[index] == "bounds"]
    if bounding and not goal.bounds and "open" not in kinds:
        raise UsageError(
            f"{' '.join(bounding)!r} bounds the objective itself: drop the bound or the objective.", hint=_HINT
        )
    return goal, [(token.text, line.slots[index]) for index, token in enumerate(line.tokens)]


def read_goal(text: str) -> Goal:
    """The goal that a sentence states by rule. Errors as of `parse`."""
    return parse(text)[0]
