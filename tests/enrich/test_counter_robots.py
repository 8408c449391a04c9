"""COUNTER's lists: robots are bots, and the tools of researchers are scripts, which count apart and are no bots.

The lists are those of the Code of Practice for Research Data (section 10.5), as their package has them. That of robots
holds most tools as well, although "this blacklist MUST NOT include general purpose user agents that are commonly used
by researchers": so what is a tool is no robot, whatever that list says.
"""

from functools import cache
from importlib.resources import files
from typing import Final

import pytest
from hypothesis import Phase, find, settings
from hypothesis import strategies as st

from metronome.enrich.user_agents import SCRIPT_DEVICE, parse_user_agent

PEOPLES: Final = frozenset(
    {
        *("ELinks\\/", "^MSIE", "[^a]fish", "cfnetwork", "mail\\.ru"),
        *("Wanadoo", "baidu", "docomo", "google", "yahoo", "yandex", "myweb"),
        *("combine", "core", "cursor", "custo", "motor", "pioneer", "speedy", "sunrise", "titan", "zeus"),
    }
)
"""Robots' patterns that people's browsers, phones and providers have too: their robots have names of their own."""

ROBOTS_TOO: Final = frozenset({"AddThis", "Indy Library"})
"""Machines of the list that another list has as robots."""

_ONE: Final = settings(max_examples=10, database=None, derandomize=True, phases=[Phase.generate])
_TYPED: Final = st.characters(min_codepoint=32, max_codepoint=126)


@cache
def examples(name: str) -> dict[str, str]:
    """Return, for each pattern of one of the lists, the simplest text that it finds."""
    patterns = files("counter_robots").joinpath("data", f"{name}.txt").read_text().splitlines()
    return {
        pattern: find(st.from_regex(pattern, alphabet=_TYPED if pattern.isascii() else None), bool, settings=_ONE)
        for pattern in patterns
    }


@pytest.mark.slow
def test_listed_robots_are_bots_unless_they_are_tools() -> None:
    agents = {pattern: parse_user_agent(examples("robot")[pattern]) for pattern in examples("robot")}
    unknown = {pattern for pattern, agent in agents.items() if agent.bot is None and agent.device != SCRIPT_DEVICE}
    assert unknown == PEOPLES


def test_listed_machines_are_scripts() -> None:
    agents = {pattern: parse_user_agent(text) for pattern, text in examples("machine").items()}
    assert {pattern for pattern, agent in agents.items() if agent.bot is not None} == ROBOTS_TOO
    assert {pattern for pattern, agent in agents.items() if agent.device != SCRIPT_DEVICE} == ROBOTS_TOO


@pytest.mark.parametrize(
    "agent",
    [
        *("curl/8.5.0", "Wget/1.21.2", "python-requests/2.31.0", "Python/3.11 aiohttp/3.8.1", "Python-urllib/3.10"),
        *("Java/17.0.1", "Apache-HttpClient/4.5.13 (Java/11.0.11)", "okhttp/4.9.0", "libwww-perl/6.68", "PHP/8.1"),
        *("R (4.2.1 x86_64-w64-mingw32 x86_64 mingw32)", "MATLAB R2022b", "Go-http-client/1.1", "axios/1.6.0"),
    ],
)
def test_tools_of_researchers_count_as_machines(agent: str) -> None:
    found = parse_user_agent(agent)
    assert (found.device, found.bot) == (SCRIPT_DEVICE, None)


@pytest.mark.parametrize(
    "agent",
    [
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
        "Mozilla/5.0 (compatible; archive.org_bot +http://archive.org/details/archive.org_bot)",
        "Scrapy/2.8.0 (+https://scrapy.org)",
        "python-requests/2.31.0 MyCrawler/1.0",
    ],
)
def test_robots_are_not_counted(agent: str) -> None:
    found = parse_user_agent(agent)
    assert found.bot is not None
    assert found.device is None
