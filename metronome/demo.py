"""Demo data: a quarter of a year of an invented open data portal, with its visitors, campaigns, robots and errors.

Events are a pure function of a seed, a day and the current time. Each session and each robot's day has random numbers
of its own, so that later calls return the same events, with the same IDs, and those that have happened since. Campaigns
follow the calendar. Only the number of sessions and robots' requests grows towards the current day; the sessions of a
day are numbered, so that a lower number is a part of a higher one.
"""

import asyncio
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from itertools import accumulate, count
from random import Random
from typing import Any, Final, NamedTuple, TypeVar

from metronome.event import Event
from metronome.intake import Intake

DEMO_DAYS: Final = 90
DEFAULT_SEED: Final = 1

_CONTINUE_SECONDS: Final = 10.0

DemoEvent = dict[str, Any]
"""An event as it is sent to ``/tick``; its ``ts`` is in milliseconds."""

_DAY_MS: Final = 86_400_000
_HOUR_MS: Final = 3_600_000
_SESSIONS_A_DAY: Final = 170
_WEEKDAY_FACTORS: Final = (1.06, 1.15, 1.12, 1.08, 0.93, 0.42, 0.47)
_GROWTH: Final = 0.4
"""How many more sessions there are now than at the beginning, as a share of now's."""
_HEARTBEAT_MS: Final = 120_000
_MAX_STAY_MS: Final = 25 * 60_000
_FIRST_FORMAT_SHARE: Final = 0.1
_INCIDENT_DAYS: Final = 37
"""Days from one incident to the next, at which requests fail for some hours."""
_INCIDENT_HOURS: Final = range(9, 12)

T = TypeVar("T")


class _Weighted(NamedTuple):
    """What can be drawn, with the sums of the weights."""

    options: Sequence[Any]
    sums: Sequence[float]

    def draw(self, rng: Random) -> Any:
        return rng.choices(self.options, cum_weights=self.sums)[0]


@dataclass(frozen=True, slots=True)
class _Person:
    """Somebody who visits the portal on one day."""

    country: str
    address: str
    browser: dict[str, Any]
    visitor: str
    is_leisure: bool


@dataclass(frozen=True, slots=True)
class _Campaign:
    """What brings more visitors on one day: how many, to which item, from where, and on the first day, from when."""

    name: str
    visits: int
    start_hour: int | None
    item: str
    source: dict[str, str]
    countries: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class _Session:
    """What determines a session: who visits which item first, when, where from, and how interested."""

    name: str
    rng: Random
    person: _Person
    start_ms: int
    item: str
    source: dict[str, Any]
    interest: float


def demo_days(now: datetime) -> list[date]:
    """Return the UTC days of the demo, from the oldest to the current one."""
    today = now.astimezone(UTC).date()
    return [today - timedelta(days=age) for age in reversed(range(DEMO_DAYS))]


@cache
def demo_items() -> Mapping[str, str]:
    """Return the titles of the demo's items by their IDs."""
    return {item: fields["title"] for item, fields in _tables()["items"].items()}


def generate_day(day: date, now: datetime, seed: int = DEFAULT_SEED) -> list[DemoEvent]:
    """Return the events of a day that have happened until *now*, oldest first.

    Those of sessions that began before midnight may be some minutes after it.

    Args:
        day: one of `demo_days`.
        now: the current time.
        seed: another seed gives another quarter of a year.

    """
    age = (now.astimezone(UTC).date() - day).days
    progress = 1 - age / DEMO_DAYS
    events: list[DemoEvent] = []
    for session in _draw_sessions(day, progress, seed):
        events += _session_events(session, day)
    events += _robot_events(day, progress, seed)
    events += _program_events(day, seed)
    end_ms = int(now.timestamp() * 1000)
    return sorted((event for event in events if event["ts"] <= end_ms), key=lambda event: int(event["ts"]))


async def load_demo(intake: Intake, now: datetime) -> int:
    """Store the demo's events, and return their number once all are on disk.

    Other requests are served meanwhile. Calling it again adds only what has happened since.

    Raises:
        SpoolFull: the spool cannot take all events.
        RequestError: the server's limits reject an event.

    """
    total = 0
    for day in demo_days(now):
        events = await asyncio.to_thread(generate_day, day, now)
        result = await intake.store(map(Event, events), is_trusted=True)
        result.raise_rejection()
        total += result.accepted
    return total


async def continue_demo(intake: Intake, since: datetime, clock: Callable[[], float]) -> None:
    """Store the demo's events as they happen, until cancelled; raises as `load_demo` does.

    Args:
        intake: where events go.
        since: the time up to which they are stored.
        clock: returns seconds since 1970.

    """
    while True:
        await asyncio.sleep(_CONTINUE_SECONDS)
        now = datetime.fromtimestamp(clock(), UTC)
        since_ms = since.timestamp() * 1000
        # Sessions may last beyond midnight.
        for day in demo_days(now)[-2:]:
            events = await asyncio.to_thread(generate_day, day, now)
            new_events = [Event(event) for event in events if event["ts"] > since_ms]
            if new_events:
                (await intake.store(new_events, is_trusted=True)).raise_rejection()
        since = now


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(files("metronome").joinpath("demo.toml").read_text(encoding="utf-8"))


def _weighted(options: Sequence[T], weights: Sequence[float]) -> _Weighted:
    return _Weighted(options, [*accumulate(weights)])


@cache
def _countries() -> _Weighted:
    countries = _tables()["countries"]
    return _weighted([*countries], [country["weight"] for country in countries.values()])


@cache
def _browsers(weight: str) -> _Weighted:
    browsers = _tables()["browsers"]
    return _weighted(browsers, [browser[weight] for browser in browsers])


@cache
def _sources() -> _Weighted:
    sources = _tables()["sources"]
    return _weighted(sources, [source["weight"] for source in sources])


@cache
def _hours(kind: str) -> _Weighted:
    return _weighted(range(24), _tables()["hours"][kind])


@cache
def _items(day: date, theme: str = "") -> _Weighted:
    """Return the items, or those of a theme, weighted by their popularity on a day."""
    items = _tables()["items"]
    weights = {
        item: _season(fields.get("peak"), day) / (rank + 3) ** 0.8
        for rank, (item, fields) in enumerate(items.items())
        if theme in ("", fields["theme"])
    }
    return _weighted([*weights], [*weights.values()])


def _season(peak: int | None, day: date) -> float:
    if peak is None:
        return 1.0
    days_after = day.timetuple().tm_yday - (peak - 0.5) * 30.4
    return 1.1 + 0.9 * math.cos(2 * math.pi * days_after / 365)


def _start_of(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def _session_name(seed: int, day: date, name: object) -> str:
    """Return what the IDs of a session's events begin with."""
    return f"demo-{seed}-{day:%Y%m%d}-{name}"


def _rng(*parts: object) -> Random:
    return Random("/".join(map(str, parts)))


def _draw_sessions(day: date, progress: float, seed: int) -> Iterator[_Session]:
    day_factor = _WEEKDAY_FACTORS[day.weekday()] * _rng(seed, day).gauss(1, 0.06)
    growth = 1.15 - _GROWTH * (1 - progress)
    for number in range(round(_SESSIONS_A_DAY * day_factor * growth)):
        yield _draw_session(day, seed, number)
    for campaign in _campaigns_on(day, seed):
        for number in range(campaign.visits):
            yield _draw_campaign_session(day, seed, f"{campaign.name}{number}", campaign)


def _campaigns_on(day: date, seed: int) -> Iterator[_Campaign]:
    for index, table in enumerate(_tables()["campaigns"]):
        round_number, age = divmod(day.toordinal() - table["first"], table["every"])
        if age >= table["days"]:
            continue
        first_visits = table["visits"] * _rng(seed, "campaign", index, round_number).uniform(0.7, 1.2)
        month = f"{day - timedelta(days=age):%Y-%m}"
        yield _Campaign(
            name=f"{index}c",
            visits=round(first_visits / 2**age),
            start_hour=table["hour"] if age == 0 else None,
            # One of the popular items, a different one each time.
            item=_items(day).options[(round_number * 7 + table["every"]) % 12],
            source={name: value.replace("{month}", month) for name, value in table["source"].items()},
            countries=table.get("countries"),
        )


def _draw_session(day: date, seed: int, number: int) -> _Session:
    rng = _rng(seed, day, number)
    # Some people come back on the same day.
    person_number = rng.randrange(number) if number and rng.random() < 0.12 else number
    person = _draw_person(_rng(seed, day, "person", person_number), day, None)
    source = _sources().draw(rng)
    item = _items(day).draw(rng)
    start_ms = _draw_start(rng, day, person)
    return _Session(_session_name(seed, day, number), rng, person, start_ms, item, source, 1.0)


def _draw_campaign_session(day: date, seed: int, name: str, campaign: _Campaign) -> _Session:
    rng = _rng(seed, day, name)
    person = _draw_person(_rng(seed, day, "person", name), day, campaign.countries)
    start_ms = _draw_start(rng, day, person)
    if campaign.start_hour is not None:
        delay_ms = rng.expovariate(1 / (4 * _HOUR_MS))
        start_ms = _start_of(day) + min(campaign.start_hour * _HOUR_MS + int(delay_ms), _DAY_MS - 1)
    # People who follow a link that many share look at little else.
    interest = 0.35 if campaign.countries else 0.9
    return _Session(_session_name(seed, day, name), rng, person, start_ms, campaign.item, campaign.source, interest)


def _draw_person(rng: Random, day: date, countries: Sequence[str] | None) -> _Person:
    country = rng.choice(countries) if countries else _countries().draw(rng)
    network = rng.choice(_tables()["countries"][country]["networks"])
    address = f"{network}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
    is_leisure = day.weekday() >= 5 or rng.random() < 0.2
    browser = _browsers("weekend" if is_leisure else "weight").draw(rng)
    return _Person(country, address, browser, f"{rng.getrandbits(64):016x}", is_leisure)


def _draw_start(rng: Random, day: date, person: _Person) -> int:
    hour = _hours("weekend" if person.is_leisure else "working").draw(rng)
    utc_hour: int = (hour - _tables()["countries"][person.country]["offset"]) % 24
    return _start_of(day) + utc_hour * _HOUR_MS + rng.randrange(_HOUR_MS)


def _session_events(session: _Session, day: date) -> Iterator[DemoEvent]:
    """Yield the events of a session, of which those of one page may overlap."""
    rng, person, site = session.rng, session.person, _tables()["site"]
    numbers = count()
    common = {
        "agent": person.browser["agent"],
        "clientip": person.address,
        "visitor": person.visitor,
        "session": _session_id(session),
    }
    country = _tables()["countries"][person.country]
    language = rng.choice(country["languages"])
    item, at_ms, previous_url = session.item, session.start_ms, ""
    while True:
        url = f"{site}/dataset/{item}"
        origin: dict[str, str] = {}
        if previous_url:
            origin = {"referer_url": previous_url}
        elif "referer" in session.source:
            origin = {"referer": session.source["referer"].format(google=country["google"])}
        landing = f"{url}?{session.source['query']}" if "query" in session.source and not previous_url else url
        stay_ms = min(int(rng.lognormvariate(math.log(48_000), 1.0)), _MAX_STAY_MS)
        is_last = rng.random() > 0.45 * session.interest
        has_left_at_once = is_last and rng.random() < 0.25
        page_events = [
            (at_ms, {"event": "view", "title": demo_items()[item], "language": language, **origin, "url": landing})
        ]
        if not has_left_at_once:
            page_events += _page_events(session, item, at_ms, stay_ms)
        for ts, fields in page_events:
            event_id = f"{session.name}-{next(numbers)}"
            yield {"event_id": event_id, "ts": ts, "id": item, "url": landing, **fields, **common}
        if is_last:
            return
        previous_url, at_ms = landing, at_ms + stay_ms + rng.randrange(800, 2500)
        item = _draw_next_item(rng, day, item)


def _session_id(session: _Session) -> str:
    return blake2b(session.name.encode(), digest_size=8).hexdigest()


def _draw_next_item(rng: Random, day: date, item: str) -> str:
    theme = _tables()["items"][item]["theme"] if rng.random() < 0.7 else ""
    following: str = _items(day, theme).draw(rng)
    return following


def _page_events(session: _Session, item: str, at_ms: int, stay_ms: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield what happens on a page after its view: the time of each event, and its own fields."""
    rng = session.rng
    agent, site = session.person.browser["agent"], _tables()["site"]
    is_incident = _is_incident(at_ms)
    if rng.random() < 0.26 * session.interest:
        formats = _tables()["items"][item]["formats"]
        file_format = formats[0] if rng.random() < _FIRST_FORMAT_SHARE else rng.choice(formats)
        file = f"{site}/files/{item}.{file_format}"
        failure = rng.random()
        if failure < (0.5 if is_incident else 0.012):
            yield at_ms + stay_ms // 2, {"event": "error", "status": 500, "url": file}
        elif failure > 0.985:
            yield at_ms + stay_ms // 2, {"event": "error", "status": 404, "url": file}
        else:
            yield at_ms + stay_ms // 2, {"event": "download", "format": file_format, "download": file}
    for error in _tables()["errors"]:
        if error.get("browser", "") in agent and rng.random() < error["share"] * (12 if is_incident else 1):
            place = {"error_url": f"{site}{error['script']}", "error_line": error["line"]}
            yield at_ms + min(stay_ms, 1500), {"event": "error", "message": error["message"], **place}
    if rng.random() < 0.03:
        yield at_ms + stay_ms // 3, {"event": "outlink", "link": f"https://docs.example.org/{item}"}
    for beat_ms in range(at_ms + _HEARTBEAT_MS, at_ms + stay_ms, _HEARTBEAT_MS):
        yield beat_ms, {"event": "heartbeat"}
    if rng.random() < 0.45:
        yield at_ms + stay_ms, {"event": "timing", **_draw_vitals(session, item, is_incident=is_incident)}
    yield at_ms + stay_ms, {"event": "heartbeat"}


def _is_incident(at_ms: int) -> bool:
    day, in_day_ms = divmod(at_ms, _DAY_MS)
    return day % _INCIDENT_DAYS == 0 and in_day_ms // _HOUR_MS in _INCIDENT_HOURS


def _draw_vitals(session: _Session, item: str, *, is_incident: bool) -> dict[str, float]:
    """Return load times in milliseconds: longer on phones, far away, for maps, and during an incident."""
    rng, browser = session.rng, session.person.browser
    device_factor: float = browser.get("slowness", 1.0)
    is_near = _tables()["countries"][session.person.country]["offset"] in (0, 1)
    is_map = _tables()["items"][item]["theme"] == "geography"
    ttfb = rng.lognormvariate(math.log(110), 0.5) * (1 if is_near else 2.6) * (5 if is_incident else 1)
    fcp = ttfb + rng.lognormvariate(math.log(620), 0.45) * device_factor
    lcp = fcp + rng.lognormvariate(math.log(540), 0.7) * device_factor * (1.9 if is_map else 1)
    vitals = {"TTFB": round(ttfb), "FCP": round(fcp), "LCP": round(lcp)}
    inp = round(rng.lognormvariate(math.log(85), 0.7) * device_factor)
    cls = round(min(rng.expovariate(1 / 0.035), 0.8), 4)
    # Only Chromium measures layout shifts.
    return {**vitals, "INP": inp, **({"CLS": cls} if "Chrome/" in browser["agent"] else {})}


def _robot_events(day: date, progress: float, seed: int) -> Iterator[DemoEvent]:
    site = _tables()["site"]
    for robot_number, robot in enumerate(_tables()["robots"]):
        name, daily = f"r{robot_number}", robot["daily"]
        rng = _rng(seed, day, name)
        if robot.get("regular"):
            hits = daily
        else:
            growth = robot.get("growth", 1.1)
            hits = round(daily * rng.uniform(0.75, 1.25) * (1 + (growth - 1) * progress))
        for number in range(hits):
            at_ms = number * _DAY_MS // daily if robot.get("regular") else rng.randrange(_DAY_MS)
            item = next(iter(demo_items())) if robot.get("regular") else rng.choice([*demo_items()])
            yield {
                "event_id": f"{_session_name(seed, day, name)}-{number}",
                "ts": _start_of(day) + at_ms,
                "id": item,
                "event": "view",
                "title": demo_items()[item],
                "url": f"{site}/dataset/{item}",
                "status": 200,
                "agent": robot["agent"],
                "clientip": f"{robot['network']}.{rng.randrange(1, 255)}",
            }


def _program_events(day: date, seed: int) -> Iterator[DemoEvent]:
    """Yield the downloads of people's programs, most of which run at night."""
    site = _tables()["site"]
    for program_number, program in enumerate(_tables()["programs"]):
        for number in range(program["daily"]):
            name = f"p{program_number}x{number}"
            # The same machine downloads the same item every day.
            machine, rng = _rng(seed, name), _rng(seed, day, name)
            person = _draw_person(machine, day, ["CH", "CH", "DE"])
            item = _items(date.min).draw(machine)
            file_format = _tables()["items"][item]["formats"][0]
            minutes = machine.randrange(6 * 60) if machine.random() < 0.7 else machine.randrange(24 * 60)
            visitor = f"{rng.getrandbits(64):016x}"
            yield {
                "event_id": f"{_session_name(seed, day, name)}-0",
                "ts": _start_of(day) + minutes * 60_000 + rng.randrange(20_000),
                "id": item,
                "event": "download",
                "format": file_format,
                "url": f"{site}/files/{item}.{file_format}",
                "agent": program["agent"],
                "clientip": person.address,
                "visitor": visitor,
                "session": visitor,
            }
