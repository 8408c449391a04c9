"""Channels of visits follow from referrers and campaigns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.enrich.channels import Channel, classify_channel
from metronome.enrich.referrers import normalize_referrer

CHANNELS = {"search", "social", "campaign", "ai", "email", "referral", "internal", "direct"}


@pytest.mark.parametrize(
    ("referer", "channel", "group"),
    [
        ("google.com", "search", "Google"),
        ("google.com/search", "search", "Google"),
        ("google.de", "search", "Google"),
        ("google.co.uk", "search", "Google"),
        ("google.com.au/url", "search", "Google"),
        ("images.google.fr", "search", "Google"),
        ("android-app://com.google.android.googlequicksearchbox", "search", "Google"),
        ("scholar.google.com", "search", "Google Scholar"),
        ("scholar.google.com.br/scholar", "search", "Google Scholar"),
        ("datasetsearch.research.google.com/search", "search", "Google Dataset Search"),
        ("bing.com/search", "search", "Bing"),
        ("cn.bing.com", "search", "Bing"),
        ("duckduckgo.com", "search", "DuckDuckGo"),
        ("html.duckduckgo.com/html", "search", "DuckDuckGo"),
        ("baidu.com/link", "search", "Baidu"),
        ("m.baidu.com", "search", "Baidu"),
        ("yandex.ru", "search", "Yandex"),
        ("yandex.com.tr/search", "search", "Yandex"),
        ("ya.ru", "search", "Yandex"),
        ("search.yahoo.com", "search", "Yahoo"),
        ("r.search.yahoo.com", "search", "Yahoo"),
        ("de.search.yahoo.com", "search", "Yahoo"),
        ("search.yahoo.co.jp/search", "search", "Yahoo"),
        ("ecosia.org", "search", "Ecosia"),
        ("qwant.com", "search", "Qwant"),
        ("kagi.com", "search", "Kagi"),
        ("search.brave.com", "search", "Brave"),
        ("startpage.com", "search", "Startpage"),
        ("search.naver.com", "search", "Naver"),
        ("base-search.net/Search/Results", "search", "BASE"),
        ("facebook.com", "social", "Facebook"),
        ("l.facebook.com/l.php", "social", "Facebook"),
        ("lm.facebook.com", "social", "Facebook"),
        ("l.instagram.com", "social", "Instagram"),
        ("t.co/abc", "social", "X"),
        ("x.com/somebody", "social", "X"),
        ("twitter.com", "social", "X"),
        ("mobile.twitter.com", "social", "X"),
        ("linkedin.com/feed", "social", "LinkedIn"),
        ("lnkd.in/x", "social", "LinkedIn"),
        ("android-app://com.linkedin.android/", "social", "LinkedIn"),
        ("android-app://com.pinterest", "social", "Pinterest"),
        ("android-app://com.whatsapp/", "social", "WhatsApp"),
        ("android-app://com.zhiliaoapp.musically", "social", "TikTok"),
        ("reddit.com/r/datasets", "social", "Reddit"),
        ("old.reddit.com", "social", "Reddit"),
        ("out.reddit.com", "social", "Reddit"),
        ("youtube.com/redirect", "social", "YouTube"),
        ("youtu.be", "social", "YouTube"),
        ("fosstodon.org", "social", "Mastodon"),
        ("mastodon.example.org/@somebody", "social", "Mastodon"),
        ("bsky.app", "social", "Bluesky"),
        ("go.bsky.app/redirect", "social", "Bluesky"),
        ("pinterest.de/pin/1", "social", "Pinterest"),
        ("tiktok.com", "social", "TikTok"),
        ("news.ycombinator.com/item", "social", "Hacker News"),
        ("web.whatsapp.com", "social", "WhatsApp"),
        ("t.me/channel", "social", "Telegram"),
        ("vk.com", "social", "VK"),
        ("chatgpt.com", "ai", "ChatGPT"),
        ("chat.openai.com", "ai", "ChatGPT"),
        ("perplexity.ai/search/abc", "ai", "Perplexity"),
        ("gemini.google.com/app", "ai", "Gemini"),
        ("bard.google.com", "ai", "Gemini"),
        ("copilot.microsoft.com", "ai", "Copilot"),
        ("edgeservices.bing.com", "ai", "Copilot"),
        ("claude.ai/chat/abc", "ai", "Claude"),
        ("you.com", "ai", "You.com"),
        ("chat.deepseek.com", "ai", "DeepSeek"),
        ("chat.mistral.ai", "ai", "Le Chat"),
        ("mail.google.com/mail/u/0", "email", "Gmail"),
        ("android-app://com.google.android.gm/", "email", "Gmail"),
        ("outlook.live.com", "email", "Outlook"),
        ("mail.yahoo.com", "email", "Yahoo Mail"),
        ("mail.proton.me", "email", "Proton Mail"),
        ("news.google.com", "referral", "Google News"),
        ("github.com/a/b", "referral", "GitHub"),
        ("en.wikipedia.org/wiki/Data", "referral", "Wikipedia"),
        ("docs.google.com/document", "referral", "docs.google.com"),
        ("arcgis.com", "referral", "arcgis.com"),
        ("washingtonpost.com/articles/dc-news", "referral", "washingtonpost.com"),
        ("notfacebook.com", "referral", "notfacebook.com"),
        ("google.com.evil.example", "referral", "google.com.evil.example"),
        ("googleusercontent.com", "referral", "googleusercontent.com"),
        ("intranet/wiki", "referral", "intranet"),
        ("192.0.2.1/a", "referral", "192.0.2.1"),
        ("[2001:db8::1]/a", "referral", "[2001:db8::1]"),
        ("https://user@WWW.Bing.com:443/search?q=1", "search", "Bing"),
    ],
)
def test_classifies_referrers(referer: str, channel: str, group: str) -> None:
    assert classify_channel(referer, None, None, is_internal=False, has_campaign=False) == Channel(channel, group)


@pytest.mark.parametrize("referer", [None, "", "-", "newsletter", "by word of mouth"])
def test_visit_without_a_referrer_is_direct(referer: str | None) -> None:
    assert classify_channel(referer, None, None, is_internal=False, has_campaign=False) == Channel("direct")


def test_visit_from_the_same_site_is_internal() -> None:
    assert classify_channel("own.example/a", None, None, is_internal=True, has_campaign=False) == Channel("internal")


@pytest.mark.parametrize(
    ("referer", "medium", "source", "channel", "group"),
    [
        (None, None, None, "campaign", None),
        (None, "cpc", "google", "campaign", "Google"),
        ("google.com", "cpc", "spring-sale", "campaign", "Google"),
        ("blog.example/a", "banner", "partner", "campaign", "blog.example"),
        (None, "social", "twitter", "campaign", "X"),
        (None, "email", "june-news", "email", None),
        ("mail.google.com", "E-Mail", "june-news", "email", "Gmail"),
        (None, "newsletter", None, "email", None),
        (None, None, "chatgpt.com", "ai", "ChatGPT"),
        (None, "referral", "perplexity", "ai", "Perplexity"),
        ("chatgpt.com", None, "openai", "ai", "ChatGPT"),
        ("chatgpt.com", "cpc", "ours", "campaign", "ChatGPT"),
    ],
)
def test_campaign_takes_precedence_over_the_referrer(
    referer: str | None, medium: str | None, source: str | None, channel: str, group: str | None
) -> None:
    assert classify_channel(referer, medium, source, is_internal=False, has_campaign=True) == Channel(channel, group)


def test_campaign_takes_precedence_over_internal() -> None:
    assert classify_channel("own.example", "banner", "home", is_internal=True, has_campaign=True) == Channel("campaign")


_texts = st.one_of(
    st.none(), st.text(max_size=300), st.from_regex(r"[a-z.]{1,20}\.(com|co\.uk)(/[a-z?]*)?", fullmatch=True)
)


@given(_texts, _texts, _texts, st.booleans(), st.booleans())
def test_any_referrer_has_a_channel(
    referer: str | None,
    medium: str | None,
    source: str | None,
    internal: bool,  # noqa: FBT001
    campaign: bool,  # noqa: FBT001
) -> None:
    found = classify_channel(referer, medium, source, is_internal=internal, has_campaign=campaign)
    assert found.channel in CHANNELS
    assert found.referer_group is None or 0 < len(found.referer_group) <= 128
    if internal and not campaign:
        assert found == Channel("internal")


@given(st.from_regex(r"https?://(www\.)?[a-z]{1,8}(\.[a-z]{2,8}){1,3}(:\d{1,4})?(/[a-z]{0,9}){0,3}/?", fullmatch=True))
def test_normalized_referrer_has_the_same_channel(url: str) -> None:
    short = normalize_referrer(url, frozenset())
    whole = classify_channel(url, None, None, is_internal=False, has_campaign=False)
    assert classify_channel(short, None, None, is_internal=False, has_campaign=False) == whole
