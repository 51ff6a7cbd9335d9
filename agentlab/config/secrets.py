"""Which variables of an environment hold secrets, and which of their values can be told from ordinary text. Pure but
for one look into agentlab's own files.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise, product
from pathlib import Path

_WORDS = re.compile(
    "apikey|auth|authorization|bearer|certificate|cert|conn|cookies?|credentials?|creds?|dsn|jwt|keys?|license|mnemonic"
    "|otp|pass|passcode|passphrase|passwd|passwords?|passw|pat|pin|private|privkey|pwd?|salt|sas|secrets?|signature"
    "|tokens?|webhook"
)
_ENDINGS = ("key", "secret", "token", "password", "passwd", "passphrase", "credentials")  # of words run together
_PHRASES = re.compile(r"(?i)connection_?string|conn_?str|(seed|recovery)_?(phrase|words)")
_NAMED_OTHERWISE = frozenset(("PWD", "OLDPWD", "SSH_AUTH_SOCK", "MONKEY", "TURKEY"))
_COUNT_NAME = re.compile(
    r"(?i)((^|_)(max|min|num|n|new|total|input|output|prompt|completion|context)_(\w+_)?tokens$|tokens_(per|limit|max))"
)
# Values that are random and public: of a commit, a container, a device, a job.
_PUBLIC_NAME = re.compile(
    r"(?i)_(id|sha|sha\d+|commit|digest|hash|revision|version|tag|model|base_url|host|port|region)$|^(hostname|cuda_|nvidia_)"
)
_NUMBER = re.compile(r"[+-]?\d[\d.,_]*")
# a key or token is never a plain number
_NUMERIC = re.compile(r"(?i)(secret|passw(or)?d|(^|_)pass(_|$)|_pwd$|passphrase|credential|(^|_)(pin|otp)(_|$))")

# Keys that tell by their shape, wherever they come from: how one begins, its other characters, how many at least.
_SHAPES = (
    ("sk-", "A-Za-z0-9_-", 16),
    ("hf_", "A-Za-z0-9", 16),
    *((f"gh{kind}_", "A-Za-z0-9", 20) for kind in "pousr"),
    ("github_pat_", "A-Za-z0-9_", 20),
    ("AKIA", "0-9A-Z", 16),
    ("glpat-", "A-Za-z0-9_-", 20),
    ("npm_", "A-Za-z0-9", 30),
    ("rk_live_", "A-Za-z0-9", 16),
    ("sk_live_", "A-Za-z0-9", 16),
    *((f"xox{kind}-", "A-Za-z0-9-", 10) for kind in "abpr"),
)
_LONGEST = 4096  # characters of a key that is told by its shape
# What has no digit soon is a name: sk-learn, Bearer authentication. Bounded, or "sk-sk-sk-..." takes quadratic time.
_LETTERS, _BEARER_LETTERS = "[A-Za-z_-]", "[A-Za-z_.~+/=-]"
_HAS_DIGIT, _MAY_GET_DIGIT = r"(?={0}{{0,64}}\d)", r"(?!{0}{{65}})"

SHAPE = re.compile(
    "|".join(
        (
            *(
                rf"\b{start}{_HAS_DIGIT.format(_LETTERS) if start == 'sk-' else ''}"
                rf"[{characters}]{{{shortest},{_LONGEST}}}"
                for start, characters, shortest in _SHAPES
            ),
            rf"(?<=Bearer ){_HAS_DIGIT.format(_BEARER_LETTERS)}[A-Za-z0-9._~+/=-]{{12,{_LONGEST}}}",
        )
    )
)
OPEN_LENGTH = _LONGEST + max(len(start) for start, _, _ in _SHAPES)
SHAPE_STARTS = (*(start for start, _, _ in _SHAPES), "Bearer ")  # every shape holds one, which is quick to see
SHAPE_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~+/=-"
URL_PASSWORD = re.compile(r"(?<=://)[^\s:/@\"]*:[^\s/\"]+(?=@)")
SHORTEST = 6  # a shorter value would mask ordinary words
# One or two words; more are a passphrase, and a longer one is a key that happens to have no digit.
_WORD = re.compile(r"[A-Za-z]{1,15}(?:[._-][A-Za-z]{1,15})?[._-]?\d{0,4}")
_TOKEN = re.compile(r"[\w.-]{1,32}")  # what a key, a name or a word of a config may look like; longer ones are keys
_PATH = re.compile(r"(?:file:|unix:)?[~.]{0,2}/")
_PATH_NAME = re.compile(r"(?i)(_|^)(path|file|dir|home|root|sock|credentials)$")  # other secrets may begin with a slash
# Of what tells about a secret and is none: AUTH_URL, KEY_TYPE, CERT_EMAIL.
_DESCRIBING_NAME = re.compile(
    r"(?i)_(type|path|file|email|mode|provider|backend|url|uri|name|host|user|alg|algorithm)$"
)
_RUN = re.compile(r"[A-Za-z0-9+]{24,}")  # a piece of a value that may be random
_HEX = re.compile(r"[0-9a-f]{32,}|[0-9A-F]{32,}")


@dataclass(frozen=True, slots=True)
class Secrets:
    """What must not get out of an environment: value -> the variable that holds it."""

    certain: Mapping[str, str]  # cannot stand anywhere by chance: keys that are used, and what looks random
    suspect: Mapping[str, str]  # may as well be ordinary words


def secrets_of(env: Mapping[str, str], keys: Collection[str] = ()) -> Secrets:
    """The secret values of an environment that are worth hiding. `keys` are variables that a config sends as keys.

    Left out are short ones, numbers that no password is made of, paths, and what agentlab itself says: with
    DB_PASSWORD=default, to mask each "default" would hide nothing and make every report unreadable. A piece of a name
    of agentlab's is a suspect: to mask it inside of that name would make a run's files unreadable.
    """
    certain: dict[str, str] = {}
    suspect: dict[str, str] = {}
    for name, raw in env.items():
        value = raw.strip()
        if len(value) < SHORTEST or not any(map(str.isalnum, value)):
            continue
        if looks_random(name, value) or URL_PASSWORD.search(value):
            certain[value] = name
        elif (name in keys or has_secret_name(name)) and _may_hide(name, value):
            described = any(map(str.isspace, value)) or _DESCRIBING_NAME.search(name)
            ordinary = is_word(value) or (_TOKEN.fullmatch(value) and value in _own_text())
            (suspect if ordinary or (name not in keys and described) else certain)[value] = name
    return Secrets(certain, suspect)


def has_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret."""
    if name in _NAMED_OTHERWISE or _COUNT_NAME.search(name):
        return False
    words = re.findall("[a-z]+", name.lower())
    return any(_WORDS.fullmatch(word) or word.endswith(_ENDINGS) for word in words) or _PHRASES.search(name) is not None


def looks_random(name: str, value: str) -> bool:
    """Whether a value has the shape of a key, or a long piece that nobody would write by hand."""
    if SHAPE.search(value):
        return True
    if _PATH.match(value) or (_PUBLIC_NAME.search(name) and not has_secret_name(name)):
        return False
    return any(_HEX.search(run) or _is_mixed(run) for run in _RUN.findall(value))


def is_word(value: str) -> bool:
    """Whether a secret looks like a word or name, so that it may stand somewhere without being meant."""
    return _WORD.fullmatch(value) is not None


def holds_secret(value: str, env: Mapping[str, str]) -> bool:
    """Whether a value has the shape of a secret, or another variable says that it is one."""
    if SHAPE.search(value) or URL_PASSWORD.search(value):
        return True
    return any(secret in value for secret in secrets_of(env).certain)


def _may_hide(name: str, value: str) -> bool:
    if _NUMBER.fullmatch(value) and not _NUMERIC.search(name):
        return False
    if _PATH_NAME.search(name) and _PATH.match(value):
        return False
    return not (_TOKEN.fullmatch(value) and _is_ours(value))


def _is_mixed(run: str) -> bool:
    """Whether capitals, small letters and digits take turns as they do in random text, a third of the time."""
    kinds = [(char.isupper(), char.isdigit()) for char in run if char.isalnum()]
    changes = sum(kind != next_kind for kind, next_kind in pairwise(kinds))
    return len(set(kinds)) == 3 and changes >= len(kinds) / 3


@cache
def open_shape() -> re.Pattern[str]:
    """Finds the end of a text that may become one of the shapes when more comes.

    It holds no other characters than SHAPE_CHARACTERS, and begins in the last OPEN_LENGTH of them.
    """
    shapes = (
        rf"\b{start}{_MAY_GET_DIGIT.format(_LETTERS) if start == 'sk-' else ''}[{characters}]{{0,{_LONGEST}}}+"
        for start, characters, _ in _SHAPES
    )
    starts: set[str] = set()
    for start, _, _ in _SHAPES:
        starts |= {rf"\b{start[:length]}" for length in range(1, len(start))}
    bearer = rf"(?<=Bearer ){_MAY_GET_DIGIT.format(_BEARER_LETTERS)}[A-Za-z0-9._~+/=-]{{1,{_LONGEST}}}+"
    return re.compile("(?:{})\\Z".format("|".join((*shapes, *sorted(starts), bearer))))


@cache
def _is_ours(value: str) -> bool:
    """Whether agentlab's sources and presets use this text as a word: a key, a choice, a model's name."""
    return value in _own_text() and re.search(rf"(?<![\w.-]){re.escape(value)}(?![\w-])", _own_text()) is not None


@cache
def _own_text() -> str:
    package = Path(__file__).resolve().parent.parent
    roots = (package, package.parent / "cli", package.parent / "configs")
    files = (sorted(root.rglob(f"*.{ending}")) for root, ending in product(roots, ("py", "yaml")))
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in chain.from_iterable(files))


def key_names(tree: object) -> Iterator[str]:
    """The variables that a resolved config names as keys: whatever else it said in `${...}` has been filled in."""
    if isinstance(tree, str):
        reference = re.fullmatch(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", tree)
        if reference:
            yield reference[1]
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from key_names(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from key_names(value)
