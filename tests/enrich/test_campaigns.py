"""Campaigns are parsed from page URLs."""

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.enrich.channels import parse_campaign

FIELDS = {"utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content"}
PAGE = "https://data.example.org/d"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        (
            f"{PAGE}?utm_source=news&utm_medium=email&utm_campaign=june%202026&utm_term=rain+fall&utm_content=top",
            {
                "utm_source": "news",
                "utm_medium": "email",
                "utm_campaign": "june 2026",
                "utm_term": "rain fall",
                "utm_content": "top",
            },
        ),
        (f"{PAGE}?page=2&utm_source=news", {"utm_source": "news"}),
        ("/d?utm_campaign=x", {"utm_campaign": "x"}),
        (f"{PAGE}#utm_campaign=x", {"utm_campaign": "x"}),
        (f"{PAGE}?a=1#mtm_campaign=x&mtm_kwd=y", {"utm_campaign": "x", "utm_term": "y"}),
        (f"{PAGE}#/route?utm_source=x", {"utm_source": "x"}),
        (
            f"{PAGE}?mtm_campaign=a&mtm_source=b&mtm_medium=c&mtm_keyword=d&mtm_content=e&mtm_cid=7",
            {"utm_campaign": "a", "utm_source": "b", "utm_medium": "c", "utm_term": "d", "utm_content": "e"},
        ),
        (f"{PAGE}?pk_campaign=a&pk_kwd=b", {"utm_campaign": "a", "utm_term": "b"}),
        (f"{PAGE}?pk_cpn=a&pk_keyword=b", {"utm_campaign": "a", "utm_term": "b"}),
        (f"{PAGE}?piwik_campaign=a&piwik_kwd=b", {"utm_campaign": "a", "utm_term": "b"}),
        (f"{PAGE}?matomo_campaign=a&matomo_kwd=b", {"utm_campaign": "a", "utm_term": "b"}),
        (f"{PAGE}?utm_source=first&utm_source=second", {"utm_source": "first"}),
        (f"{PAGE}?utm_source=&mtm_source=second", {"utm_source": "second"}),
        (f"{PAGE}?utm_source=%20%20", {}),
        (f"{PAGE}?utm_source=%FF", {"utm_source": "%FF"}),
        (f"{PAGE}?gclid=Cj0abc", {"utm_source": "google", "utm_medium": "cpc"}),
        (f"{PAGE}?msclkid=1&utm_campaign=x", {"utm_source": "bing", "utm_medium": "cpc", "utm_campaign": "x"}),
        (f"{PAGE}?utm_source=ours&gclid=1", {"utm_source": "ours"}),
        (f"{PAGE}?fbclid=IwAR0", {}),
        (f"{PAGE}?page=2&q=utm_source", {}),
        (f"{PAGE}?utm_id=7&xutm_source=a", {}),
        ("https://data.example.org/utm_source=a", {}),
        (PAGE, {}),
        ("", {}),
    ],
)
def test_parses_campaigns_of_urls(url: str, found: dict[str, str]) -> None:
    assert parse_campaign(url) == found


def test_values_are_truncated() -> None:
    assert parse_campaign(f"{PAGE}?utm_source={'x' * 1000}") == {"utm_source": "x" * 200}


_names = st.sampled_from([*sorted(FIELDS), "mtm_campaign", "pk_kwd", "gclid", "fbclid", "a", ""])
_queries = st.lists(st.builds("{}={}".format, _names, st.text(max_size=12)), max_size=8).map("&".join)


@given(st.one_of(st.text(), st.builds("{}{}{}".format, st.text(max_size=9), st.sampled_from("?#&"), _queries)))
def test_any_url_has_short_campaign_values_or_none(url: str) -> None:
    found = parse_campaign(url)
    assert found.keys() <= FIELDS
    assert all(0 < len(value) <= 200 for value in found.values())


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), st.text("abc ÄÖ+&=#?%/", min_size=1, max_size=20), min_size=1))
def test_percent_encoded_values_are_decoded(fields: dict[str, str]) -> None:
    expected = {name: value.strip() for name, value in fields.items() if value.strip()}
    assert parse_campaign(f"{PAGE}?{urlencode(fields)}") == expected
