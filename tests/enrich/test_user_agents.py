"""User agents are parsed into browsers, tools and robots."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.enrich.user_agents import SCRIPT_DEVICE, ParsedUserAgent, parse_user_agent

_DEVICES = {"desktop", "mobile", "tablet", "tv", "console", "script", "other"}
_KINDS = {"search", "ai", "seo", "social", "monitor", "feed", "archive", "other"}
_WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
_APPLE = "AppleWebKit/605.1.15 (KHTML, like Gecko)"

_BROWSERS = [
    (
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Chrome/126.0.0.0 Safari/537.36",
        ("Chrome", "126", "Windows", "10", "desktop"),
    ),
    (
        f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_WEBKIT} Chrome/125.0.0.0 Safari/537.36",
        ("Chrome", "125", "macOS", "10", "desktop"),
    ),
    (
        f"Mozilla/5.0 (X11; Linux x86_64) {_WEBKIT} Chrome/124.0.0.0 Safari/537.36",
        ("Chrome", "124", "Linux", None, "desktop"),
    ),
    (
        f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {_WEBKIT} Chrome/126.0.0.0 Safari/537.36",
        ("Chrome", "126", "Chrome OS", "14541", "desktop"),
    ),
    (
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Chrome/126.0.0.0 Safari/537.36 Edg/126.0.2592.68",
        ("Edge", "126", "Windows", "10", "desktop"),
    ),
    (
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Chrome/64.0.3282.140 Safari/537.36 Edge/18.17763",
        ("Edge", "18", "Windows", "10", "desktop"),
    ),
    (
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Chrome/125.0.0.0 Safari/537.36 OPR/111.0.0.0",
        ("Opera", "111", "Windows", "10", "desktop"),
    ),
    (
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Chrome/124.0.6367.118 Safari/537.36 Vivaldi/6.7.3329.35",
        ("Vivaldi", "6", "Windows", "10", "desktop"),
    ),
    (
        f"Mozilla/5.0 (Windows NT 10.0; WOW64) {_WEBKIT} Chrome/122.0.0.0 YaBrowser/24.4.0.0 Yowser/2.5 Safari/537.36",
        ("Yandex Browser", "24", "Windows", "10", "desktop"),
    ),
    (
        "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
        ("Firefox", "127", "Ubuntu", None, "desktop"),
    ),
    (
        "Mozilla/5.0 (Windows NT 6.1; Win64; x64; rv:115.0) Gecko/20100101 Firefox/115.0",
        ("Firefox", "115", "Windows", "7", "desktop"),
    ),
    (
        "Mozilla/5.0 (X11; FreeBSD amd64; rv:109.0) Gecko/20100101 Firefox/118.0",
        ("Firefox", "118", "FreeBSD", None, "desktop"),
    ),
    (
        f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_APPLE} Version/17.5 Safari/605.1.15",
        ("Safari", "17", "macOS", "10", "desktop"),
    ),
    (
        "Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko",
        ("IE", "11", "Windows", "7", "desktop"),
    ),
    (
        "Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 5.1; Trident/4.0; .NET CLR 2.0.50727)",
        ("IE", "8", "Windows", "XP", "desktop"),
    ),
    (
        "Opera/9.80 (Windows NT 6.1; U; en) Presto/2.10.289 Version/12.02",
        ("Opera", "12", "Windows", "7", "desktop"),
    ),
    (
        f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) {_APPLE} Version/17.5 Mobile/15E148 Safari/604.1",
        ("Safari", "17", "iOS", "17", "mobile"),
    ),
    (
        f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) {_APPLE} CriOS/126.0.6478 Mobile/15E148 Safari/604.1",
        ("Chrome", "126", "iOS", "17", "mobile"),
    ),
    (
        f"Mozilla/5.0 (iPhone; CPU iPhone OS 14_5 like Mac OS X) {_APPLE} FxiOS/127.0 Mobile/15E148 Safari/605.1.15",
        ("Firefox", "127", "iOS", "14", "mobile"),
    ),
    (
        f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) {_APPLE} Mobile/15E148",
        ("iOS WebView", None, "iOS", "17", "mobile"),
    ),
    (
        f"Mozilla/5.0 (iPad; CPU OS 12_5_7 like Mac OS X) {_APPLE} Version/12.1.2 Mobile/15E148 Safari/604.1",
        ("Safari", "12", "iOS", "12", "tablet"),
    ),
    (
        f"Mozilla/5.0 (Linux; Android 10; K) {_WEBKIT} Chrome/126.0.0.0 Mobile Safari/537.36",
        ("Chrome", "126", "Android", "10", "mobile"),
    ),
    (
        f"Mozilla/5.0 (Linux; Android 10; K) {_WEBKIT} Chrome/126.0.0.0 Safari/537.36",
        ("Chrome", "126", "Android", "10", "tablet"),
    ),
    (
        f"Mozilla/5.0 (Linux; Android 13; SM-X700) {_WEBKIT} SamsungBrowser/25.0 Chrome/121.0.0.0 Safari/537.36",
        ("Samsung Internet", "25", "Android", "13", "tablet"),
    ),
    (
        "Mozilla/5.0 (Android 14; Mobile; rv:127.0) Gecko/127.0 Firefox/127.0",
        ("Firefox", "127", "Android", "14", "mobile"),
    ),
    (
        "Mozilla/5.0 (Android 14; Tablet; rv:127.0) Gecko/127.0 Firefox/127.0",
        ("Firefox", "127", "Android", "14", "tablet"),
    ),
    (
        f"Mozilla/5.0 (Linux; Android 9; KFMAWI) {_WEBKIT} Silk/112.4.1 like Chrome/112.0.5615.213 Safari/537.36",
        ("Amazon Silk", "112", "Android", "9", "tablet"),
    ),
    (
        (
            f"Mozilla/5.0 (Linux; Android 14; Pixel 8 Build/UQ1A; wv) {_WEBKIT} Version/4.0 Chrome/124.0.0.0 Mobile "
            "Safari/537.36"
        ),
        ("Android WebView", "124", "Android", "14", "mobile"),
    ),
    (
        "Opera/9.80 (Android; Opera Mini/36.2.2254/119.132; U; id) Presto/2.12.423 Version/12.16",
        ("Opera Mini", "36", "Android", None, "mobile"),
    ),
    (
        (
            f"Mozilla/5.0 (Linux; Android 12; moto g(50) 5G; wv) {_WEBKIT} Version/4.0 Chrome/124.0.6367.180 Mobile "
            "Safari/537.36 Instagram 333.0.0.42.91 Android (31/12; 280dpi; 720x1462; motorola; moto g(50) 5G)"
        ),
        ("Instagram", "333", "Android", "12", "mobile"),
    ),
    (
        f"Mozilla/5.0 (Linux; Android 9; CUBOT_P20) {_WEBKIT} Chrome/110.0.0.0 Mobile Safari/537.36",
        ("Chrome", "110", "Android", "9", "mobile"),
    ),
    (
        f"Mozilla/5.0 (Linux; Android 7.1.2; google Pixel 2) {_WEBKIT} Chrome/104.0.0.0 Mobile Safari/537.36",
        ("Chrome", "104", "Android", "7", "mobile"),
    ),
    (
        f"Mozilla/5.0 (SMART-TV; LINUX; Tizen 6.0) {_WEBKIT} SamsungBrowser/3.0 Chrome/76.0.3809.146 TV Safari/537.36",
        ("Samsung Internet", "3", "Tizen", "6", "tv"),
    ),
    (
        f"Mozilla/5.0 (Web0S; Linux/SmartTV) {_WEBKIT} Chrome/94.0.4606.128 Safari/537.36 WebAppManager",
        ("Chrome", "94", "webOS", None, "tv"),
    ),
    (
        f"Mozilla/5.0 (PlayStation; PlayStation 5/6.00) {_APPLE} Version/15.4 Safari/605.1.15",
        ("Safari", "15", None, None, "console"),
    ),
    ("Mozilla/5.0 (PlayStation 4 5.00) AppleWebKit/601.2 (KHTML, like Gecko)", (None, None, None, None, "console")),
    (
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64; Xbox; Xbox One) {_WEBKIT} Chrome/64.0 Safari/537.36 Edge/18.19",
        ("Edge", "18", "Windows", "10", "console"),
    ),
    (
        (
            "Mozilla/5.0 (Nintendo Switch; WifiWebAuthApplet) AppleWebKit/609.4 (KHTML, like Gecko) NF/6.0.2.23.6 "
            "NintendoBrowser/5.1.0.23620"
        ),
        (None, None, None, None, "console"),
    ),
    ("Lynx/2.9.0dev.5 libwww-FM/2.14 SSL-MM/1.4.1 GNUTLS/3.6.13", ("Lynx", "2", None, None, "other")),
    ("something of nobody's", (None, None, None, None, "other")),
]

_ROBOTS = [
    ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "Googlebot", "search"),
    (
        (
            f"Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) {_WEBKIT} Chrome/125.0 Mobile Safari/537.36 "
            "(compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
        ),
        "Googlebot",
        "search",
    ),
    ("Googlebot-Image/1.0", "Googlebot-Image", "search"),
    (
        (
            f"Mozilla/5.0 {_WEBKIT.replace(')', '')}; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm) "
            "Chrome/116.0.1938.76 Safari/537.36"
        ),
        "bingbot",
        "search",
    ),
    ("DuckDuckBot/1.1; (+http://duckduckgo.com/duckduckbot.html)", "DuckDuckBot", "search"),
    ("Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)", "YandexBot", "search"),
    (
        "Mozilla/5.0 (compatible; Baiduspider/2.0; +http://www.baidu.com/search/spider.html)",
        "Baiduspider",
        "search",
    ),
    ("Mozilla/5.0 (compatible; Yahoo! Slurp; http://help.yahoo.com/help/us/ysearch/slurp)", "Slurp", "search"),
    (
        (
            f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_5) {_APPLE} Version/13.1.1 Safari/605.1.15 "
            "(Applebot/0.1; +http://www.apple.com/go/applebot)"
        ),
        "Applebot",
        "search",
    ),
    ("Mozilla/5.0 (compatible; SeznamBot/4.0; +http://napoveda.seznam.cz/seznambot-intro/)", "SeznamBot", "search"),
    ("Mozilla/5.0 (compatible; PetalBot;+https://webmaster.petalsearch.com/site/petalbot)", "PetalBot", "search"),
    ("Mozilla/5.0 (compatible; MojeekBot/0.11; +https://www.mojeek.com/bot.html)", "MojeekBot", "search"),
    ("Sogou web spider/4.0(+http://www.sogou.com/docs/help/webmasters.htm#07)", "Sogou", "search"),
    (
        f"Mozilla/5.0 {_WEBKIT.replace(')', '')}; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
        "GPTBot",
        "ai",
    ),
    (
        f"Mozilla/5.0 {_WEBKIT.replace(')', '')}); compatible; ChatGPT-User/1.0; +https://openai.com/bot",
        "ChatGPT-User",
        "ai",
    ),
    ("Mozilla/5.0 (compatible; OAI-SearchBot/1.0; +https://openai.com/searchbot)", "OAI-SearchBot", "ai"),
    (
        f"Mozilla/5.0 {_WEBKIT.replace(')', '')}; compatible; ClaudeBot/1.0; +claudebot@anthropic.com)",
        "ClaudeBot",
        "ai",
    ),
    ("Mozilla/5.0 (compatible; PerplexityBot/1.0; +https://perplexity.ai/perplexitybot)", "PerplexityBot", "ai"),
    ("CCBot/2.0 (https://commoncrawl.org/faq/)", "CCBot", "ai"),
    ("Mozilla/5.0 (compatible; Bytespider; spider-feedback@bytedance.com)", "Bytespider", "ai"),
    ("meta-externalagent/1.1 (+https://developers.facebook.com/docs/sharing/)", "meta-externalagent", "ai"),
    ("Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)", "AhrefsBot", "seo"),
    ("Mozilla/5.0 (compatible; SemrushBot/7~bl; +http://www.semrush.com/bot.html)", "SemrushBot", "seo"),
    ("Mozilla/5.0 (compatible; MJ12bot/v1.4.8; http://mj12bot.com/)", "MJ12bot", "seo"),
    ("Mozilla/5.0 (compatible; DotBot/1.2; +https://opensiteexplorer.org/dotbot; help@moz.com)", "DotBot", "seo"),
    ("Mozilla/5.0 (compatible; BLEXBot/1.0; +http://webmeup-crawler.com/)", "BLEXBot", "seo"),
    ("Mozilla/5.0 (compatible; DataForSeoBot/1.0; +https://dataforseo.com/dataforseo-bot)", "DataForSeoBot", "seo"),
    ("Screaming Frog SEO Spider/19.0", "Screaming Frog SEO Spider", "seo"),
    ("facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)", "facebookexternalhit", "social"),
    ("Twitterbot/1.0", "Twitterbot", "social"),
    (
        "LinkedInBot/1.0 (compatible; Mozilla/5.0; Apache-HttpClient +http://www.linkedin.com)",
        "LinkedInBot",
        "social",
    ),
    ("Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", "Slackbot", "social"),
    ("Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)", "Discordbot", "social"),
    ("TelegramBot (like TwitterBot)", "TelegramBot", "social"),
    ("WhatsApp/2.23.20.0", "WhatsApp", "social"),
    ("http.rb/5.1.1 (Mastodon/4.2.1; +https://mastodon.example/)", "Mastodon", "social"),
    (
        "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
        "UptimeRobot",
        "monitor",
    ),
    ("Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)", "Pingdom", "monitor"),
    ("check_http/v2.3.3 (monitoring-plugins 2.3.3)", "check_http", "monitor"),
    ("ELB-HealthChecker/2.0", "ELB-HealthChecker", "monitor"),
    (f"Mozilla/5.0 (X11; Linux x86_64) {_WEBKIT} HeadlessChrome/126.0.0.0 Safari/537.36", "HeadlessChrome", "other"),
    ("Feedly/1.0 (+http://www.feedly.com/fetcher.html; like FeedFetcher-Google)", "Feedly", "feed"),
    ("FreshRSS/1.23.1 (Linux; https://freshrss.org)", "FreshRSS", "feed"),
    ("Mozilla/5.0 (compatible; archive.org_bot +http://archive.org/details/)", "archive.org_bot", "archive"),
    ("ia_archiver (+http://www.alexa.com/site/help/webmasters; crawler@alexa.com)", "ia_archiver", "archive"),
    ("Mozilla/5.0 (compatible; heritrix/3.4.0 +https://www.kb.dk/netarkivindsamling/)", "heritrix", "archive"),
    ("Scrapy/2.11.0 (+https://scrapy.org)", "Scrapy", "other"),
    ("Mozilla/5.0 (compatible; Nmap Scripting Engine; https://nmap.org/)", "Nmap Scripting Engine", "other"),
    ("TurnitinBot (https://turnitin.com/robot/crawlerinfo.html)", "TurnitinBot", "other"),
    ("Mozilla/5.0 (compatible; Our-Own_Crawler/0.1)", "Our-Own_Crawler", "other"),
    ("python-requests/2.31.0 ourharvestbot", "ourharvestbot", "other"),
    ("Mozilla/5.0 (compatible; Dataprovider.com)", "Dataprovider.com", "other"),
    ("Mozilla/5.0 (compatible; Neverheard/6.92; +https://www.neverheard.example/)", "Neverheard", "other"),
    ("Mozilla/5.0 (compatible; +https://www.nameless.example/about)", "nameless.example", "other"),
    ("HTTrack/3.0x", "HTTrack", "other"),
    ("Arachni/v1.5.1", "Arachni", "other"),
    ("Xenu Link Sleuth/1.3.8", "Xenu Link Sleuth", "other"),
]

_TOOLS = [
    ("curl/8.5.0", "curl", "8"),
    ("Wget/1.21.3", "Wget", "1"),
    ("Wget/1.20.3 (linux-gnu)", "Wget", "1"),
    ("python-requests/2.31.0", "python-requests", "2"),
    ("Python-urllib/3.11", "Python-urllib", "3"),
    ("Python/3.11 aiohttp/3.9.1", "aiohttp", "3"),
    ("python-httpx/0.27.0", "python-httpx", "0"),
    ("Java/17.0.9", "Java", "17"),
    ("Apache-HttpClient/4.5.13 (Java/11.0.19)", "Apache-HttpClient", "4"),
    ("okhttp/4.12.0", "okhttp", "4"),
    ("Go-http-client/2.0", "Go-http-client", "2"),
    ("R (4.3.1 x86_64-w64-mingw32 x86_64 mingw32)", "R", None),
    ("libcurl/7.88.1 r-curl/5.0.2 httr/1.4.7", "r-curl", "5"),
    ("Julia/1.9", "Julia", "1"),
    ("axios/1.6.8", "axios", "1"),
    ("node-fetch/1.0 (+https://github.com/bitinn/node-fetch)", "node-fetch", "1"),
    ("undici", "undici", None),
    ("PostmanRuntime/7.37.3", "PostmanRuntime", "7"),
    ("HTTPie/3.2.2", "HTTPie", "3"),
    ("GuzzleHttp/7", "GuzzleHttp", "7"),
    ("libwww-perl/6.67", "libwww-perl", "6"),
    ("Ruby", "Ruby", None),
    ("Dart/3.3 (dart:io)", "Dart", "3"),
    ("aria2/1.36.0", "aria2", "1"),
    ("git/2.39.5", "git", "2"),
    ("reqwest/0.11.24", "reqwest", "0"),
    ("aws-cli/2.15.0 Python/3.11.6 Linux/5.10 exe/x86_64", "aws-cli", "2"),
    (
        "Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.1682",
        "PowerShell",
        "5",
    ),
    ("somebodys-python-thing/1.0", "somebodys-python-thing", None),
]


@pytest.mark.parametrize(("text", "told"), _BROWSERS)
def test_parses_browser_system_and_device(text: str, told: tuple[str | None, ...]) -> None:
    assert parse_user_agent(text) == ParsedUserAgent(*told)


@pytest.mark.parametrize("model", ["CUBOT MAX", "CUBOT_P20", "M bot 60 Build/PPR1", "motorola one", "Robotic"])
def test_phones_named_like_robots_are_not_robots(model: str) -> None:
    agent = parse_user_agent(f"Mozilla/5.0 (Linux; Android 9; {model}) {_WEBKIT} Chrome/110.0.0.0 Mobile Safari/537.36")
    assert (agent.bot, agent.os, agent.device) == (None, "Android", "mobile")


@pytest.mark.parametrize(("text", "name", "kind"), _ROBOTS)
def test_robots_have_a_name_and_a_kind_but_no_browser(text: str, name: str, kind: str) -> None:
    assert parse_user_agent(text) == ParsedUserAgent(bot=name, bot_kind=kind)


@pytest.mark.parametrize(("text", "name", "version"), _TOOLS)
def test_tools_are_scripts_and_not_robots(text: str, name: str, version: str | None) -> None:
    assert parse_user_agent(text) == ParsedUserAgent(browser=name, browser_version=version, device=SCRIPT_DEVICE)


@pytest.mark.parametrize("text", ["", "-", "  ", "\t"])
def test_empty_user_agent_says_nothing(text: str) -> None:
    assert parse_user_agent(text) == ParsedUserAgent()


def test_end_of_a_long_user_agent_is_ignored() -> None:
    known = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"
    assert parse_user_agent(known + " " * 512 + "Googlebot/2.1") == parse_user_agent(known)
    assert parse_user_agent(known + " Googlebot/2.1").bot == "Googlebot"


def test_lone_surrogates_do_no_harm() -> None:
    assert parse_user_agent("curl/8.5.0 \ud800").browser == "curl"


_PARTS = "Mozilla/5.0 (|compatible; |Android 14; |Mobile |bot|Bot/|+http://|spider|curl/|/1|İ|Windows NT 10.0|999|; |"
_parts = st.sampled_from([*f"{_PARTS}AppleWebKit/537.36 |Chrome/|)| |yandex.com/bots|R (|_|.".split("|"), "\ud800"])


@given(st.one_of(st.text(max_size=600), st.lists(_parts, max_size=40).map("".join)))
def test_any_text_has_short_results_or_none(text: str) -> None:
    agent = parse_user_agent(text)
    assert agent.device in _DEVICES or (agent.device is None and (agent.bot or agent == ParsedUserAgent()))
    assert agent.bot_kind in _KINDS or (agent.bot_kind is None and agent.bot is None)
    assert all(value is None or 0 < len(value) <= 128 for value in agent)
    assert parse_user_agent(text) == agent


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=40))
def test_finds_robots_in_any_context(text: str) -> None:
    assert parse_user_agent(f"Mozilla/5.0 (compatible; GPTBot/1.2) {text}").bot is not None
