"""Grams of CO2 a kilowatt-hour: a number, a country's yearly mean, or what a service says of a grid now."""

import csv
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agentlab.errors import MissingKeyError, RemoteError, UnknownNameError
from agentlab.llm.provider_config import require_trust
from agentlab.runs.atomic import make_folder, read_text, write_json

KEY = "ELECTRICITYMAPS_TOKEN"
_COUNTRIES = Path(__file__).with_name("countries.csv")  # Ember and Energy Institute, by Our World in Data; grams a kWh
_FRESH, _SECONDS = 3600.0, 10.0  # an answer is kept for an hour, and waited for so long
_MOST, _MOST_GRAMS = 1 << 20, 5_000.0


@dataclass(frozen=True, slots=True)
class Intensity:
    """Grams of CO2 a kilowatt-hour, and where the number is from."""

    grams: float
    source: str


def look_up_intensity(value: float | str) -> Intensity:
    """A number as it is, or the mean of a country, by its name or its two or three letters (ISO 3166).

    Raises:
        UnknownNameError: there is no such country.
    """
    if not isinstance(value, str):
        return Intensity(float(value), "fixed")
    with _COUNTRIES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows_by_name: dict[str, dict[str, str]] = {}
    for country in rows:
        names = (country["code"], country["short"], country["country"])
        rows_by_name |= {name.casefold(): country for name in names}
    row = rows_by_name.get(value.strip().casefold())
    if row is None:
        raise UnknownNameError("country", value, [row["country"] for row in rows])
    return Intensity(float(row["grams"]), f"mean for {row['country']}, {row['year']}")


def key_of(service: str, env: Mapping[str, str]) -> str:
    """The key of the service at this address.

    Raises:
        UntrustedHostError: the key may not go there.
        MissingKeyError: it is not set.
    """
    require_trust(KEY, service, env)
    if not env.get(KEY):
        raise MissingKeyError(f"{KEY} is not set.", hint="Set it in the environment or in .env, or remove energy.zone.")
    return env[KEY]


def fetch_intensity(
    service: str, zone: str, key: str, cache: Path, otherwise: Intensity, now: float | None = None
) -> Intensity:
    """What Electricity Maps, or what speaks like it, says of a zone; an answer of the last hour is not asked for again.

    Args:
        service: the address of its API; `key` goes there and nowhere else.
        cache: a file for its answers.
        otherwise: what counts where it cannot be reached and has not answered before.
        now: seconds since 1970.
    """
    from agentlab.llm.transport import fetch

    now, cached = time.time() if now is None else now, _read_cache(cache)
    last = cached.get(zone)
    if last is not None and now - last["at"] < _FRESH:
        return _build_intensity(zone, last)
    try:
        answer = fetch(service, "/carbon-intensity/latest", {"zone": zone}, {"auth-token": key}, _SECONDS)
        last = {"grams": float(answer["carbonIntensity"]), "at": now}
        if not 0 <= last["grams"] < _MOST_GRAMS:
            raise ValueError(f"{last['grams']} g per kWh is out of range")
    except (RemoteError, ValueError, KeyError, TypeError) as error:
        reason = error.message if isinstance(error, RemoteError) else "the response contains no carbon intensity."
        before = _build_intensity(zone, cached[zone]) if zone in cached else otherwise
        return Intensity(before.grams, f"{before.source}; the service returned no current value: {reason}")
    make_folder(cache.parent)
    write_json(cache, {**cached, zone: last})
    return _build_intensity(zone, last)


def _build_intensity(zone: str, answer: Mapping[str, float]) -> Intensity:
    at = time.strftime("%Y-%m-%d %H:%M", time.gmtime(answer["at"]))
    return Intensity(answer["grams"], f"Electricity Maps, {zone}, {at} UTC")


def _read_cache(cache: Path) -> dict[str, dict[str, float]]:
    try:
        cached = json.loads(read_text(cache, _MOST))
        return {zone: {"grams": float(answer["grams"]), "at": float(answer["at"])} for zone, answer in cached.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # there is none, or it is damaged: it is asked for again
