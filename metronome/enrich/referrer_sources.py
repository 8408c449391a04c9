"""Hosts that many visits come from: what they are called, and of what kind they are.

Kept here by hand, for the packages that have such tables are no longer kept: none knows an assistant. A host counts
with all that lies below it, but where a longer name stands here too.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple


class ReferrerSource(NamedTuple):
    """A place that visits come from: search, social, ai, email or referral, and what it is called."""

    channel: str
    name: str


_SEARCH_HOSTS: Final = """
    AOL: search.aol.com, aolsearch.com
    Ask: ask.com
    Baidu: baidu.com
    BASE: base-search.net
    Bing: bing.com, cn.bing.com
    Brave: search.brave.com
    Coc Coc: coccoc.com
    CORE: core.ac.uk
    Daum: search.daum.net
    Dogpile: dogpile.com
    DuckDuckGo: duckduckgo.com, ddg.gg
    Ecosia: ecosia.org
    Exalead: exalead.com
    Google: com.google.android.googlequicksearchbox
    Google Dataset Search: datasetsearch.research.google.com
    Kagi: kagi.com
    Lycos: search.lycos.com
    MetaGer: metager.de, metager.org
    Mojeek: mojeek.com
    MSN: search.msn.com
    Naver: search.naver.com, m.search.naver.com
    OpenAlex: openalex.org
    Presearch: presearch.com, presearch.org
    Qwant: qwant.com
    Rambler: nova.rambler.ru
    Semantic Scholar: semanticscholar.org
    Seznam: search.seznam.cz
    Sogou: sogou.com
    So.com: so.com, haosou.com
    Startpage: startpage.com, ixquick.com
    Swisscows: swisscows.com, swisscows.ch
    WorldCat: worldcat.org
    Yep: yep.com
"""
_SOCIAL_HOSTS: Final = """
    Academia.edu: academia.edu
    Bluesky: bsky.app, bsky.social
    DeviantArt: deviantart.com
    Discord: discord.com, discordapp.com, discord.gg
    Douban: douban.com
    Facebook: facebook.com, fb.com, fb.me, fb.watch, messenger.com, com.facebook.katana
    Flickr: flickr.com
    Goodreads: goodreads.com
    Hacker News: news.ycombinator.com, hn.algolia.com, hckrnews.com
    Instagram: instagram.com, com.instagram.android
    KakaoTalk: story.kakao.com
    LINE: line.me, jp.naver.line.android
    LinkedIn: linkedin.com, lnkd.in, com.linkedin.android
    Lobsters: lobste.rs
    Mastodon: mastodon.social, mastodon.online, mstdn.social, mas.to, fosstodon.org, hachyderm.io, techhub.social,
        scholar.social, fediscience.org, mathstodon.xyz, chaos.social, infosec.exchange, social.vivaldi.net, troet.cafe,
        norden.social, mstdn.jp, pawoo.net, digitalcourage.social, openbiblio.social, social.bund.de, universeodon.com,
        sciences.social, astrodon.social, elk.zone, joinmastodon.org, org.joinmastodon.android
    Medium: medium.com
    Mixi: mixi.jp
    Odnoklassniki: ok.ru, odnoklassniki.ru
    Pinterest: pinterest.com, pin.it
    Quora: quora.com
    Reddit: reddit.com, redd.it, com.reddit.frontpage
    ResearchGate: researchgate.net
    Slack: slack.com, slack-redir.net, com.slack
    Snapchat: snapchat.com
    Stack Overflow: stackoverflow.com, stackexchange.com, serverfault.com, superuser.com, askubuntu.com,
        mathoverflow.net
    Substack: substack.com
    Teams: teams.microsoft.com, statics.teams.cdn.office.net, teams.cdn.office.net
    Telegram: t.me, telegram.org, telegram.me, org.telegram.messenger
    Threads: threads.net, threads.com
    TikTok: tiktok.com
    Tumblr: tumblr.com
    Twitch: twitch.tv
    Vimeo: vimeo.com
    VK: vk.com, vk.ru, vkontakte.ru
    WeChat: weixin.qq.com, wechat.com, mp.weixin.qq.com
    Weibo: weibo.com, weibo.cn
    WhatsApp: whatsapp.com, wa.me
    X: x.com, twitter.com, t.co, com.twitter.android
    Xing: xing.com
    YouTube: youtube.com, youtu.be, com.google.android.youtube
    Zhihu: zhihu.com
"""
_AI_HOSTS: Final = """
    ChatGPT: chatgpt.com, openai.com, com.openai.chatgpt
    Claude: claude.ai, claude.com
    Consensus: consensus.app
    Copilot: copilot.microsoft.com, copilot.com, copilot.cloud.microsoft, m365.cloud.microsoft, edgeservices.bing.com
    DeepSeek: deepseek.com
    Doubao: doubao.com
    DuckDuckGo AI: duck.ai
    Elicit: elicit.com, elicit.org
    Ernie: yiyan.baidu.com, ernie.baidu.com
    Felo: felo.ai
    Gemini: gemini.google.com, gemini.google, bard.google.com, com.google.android.apps.bard
    Grok: grok.com, x.ai, grok.x.ai
    Kimi: kimi.com, kimi.ai, kimi.moonshot.cn
    Le Chat: mistral.ai
    Meta AI: meta.ai
    NotebookLM: notebooklm.google.com, notebooklm.google
    Perplexity: perplexity.ai, ai.perplexity.app.android
    Phind: phind.com
    Poe: poe.com
    Qwen: qwen.ai, tongyi.aliyun.com, tongyi.com
    Scite: scite.ai
    You.com: you.com
    Z.ai: z.ai, chatglm.cn
"""
_EMAIL_HOSTS: Final = """
    AOL Mail: mail.aol.com
    Fastmail: fastmail.com
    Gmail: mail.google.com, com.google.android.gm
    GMX: gmx.net, deref-gmx.net, gmx.com, gmx.at, gmx.ch, gmx.de
    iCloud Mail: icloud.com
    Mail.ru: e.mail.ru, touch.mail.ru
    Mailchimp: mailchi.mp, list-manage.com, campaign-archive.com
    NetEase Mail: mail.163.com, mail.126.com
    Orange Mail: messagerie.orange.fr, mail01.orange.fr
    Outlook: outlook.com, outlook.live.com, mail.live.com, outlook.office.com, outlook.office365.com, hotmail.com,
        com.microsoft.office.outlook
    Proton Mail: mail.proton.me, mail.protonmail.com
    QQ Mail: mail.qq.com
    Seznam Mail: email.seznam.cz
    T-Online Mail: email.t-online.de
    Tuta: mail.tutanota.com, app.tuta.com
    WEB.DE: web.de, deref-web.de
    Yahoo Mail: mail.yahoo.com, mail.yahoo.co.jp
    Yandex Mail: mail.yandex.ru, mail.yandex.com
    Zoho Mail: mail.zoho.com, mail.zoho.eu
"""
_REFERRAL_HOSTS: Final = """
    Baidu Baike: baike.baidu.com
    Baidu Tieba: tieba.baidu.com
    Bitbucket: bitbucket.org
    DataCite: datacite.org
    DOI: doi.org
    GitHub: github.com, github.io, githubusercontent.com
    GitLab: gitlab.com
    Hugging Face: huggingface.co
    ORCID: orcid.org
    Wikipedia: wikipedia.org
    Wikidata: wikidata.org
    Zenodo: zenodo.org
"""
_TABLES: Final = {
    "search": _SEARCH_HOSTS,
    "social": _SOCIAL_HOSTS,
    "ai": _AI_HOSTS,
    "email": _EMAIL_HOSTS,
    "referral": _REFERRAL_HOSTS,
}

_COUNTRY_DOMAIN: Final = r"(?:com?\.)?[a-z]{2,3}"
_SOURCE_PATTERNS: Final = (
    (re.compile(rf"scholar\.google\.{_COUNTRY_DOMAIN}"), ReferrerSource("search", "Google Scholar")),
    (re.compile(rf"news\.google\.{_COUNTRY_DOMAIN}"), ReferrerSource("referral", "Google News")),
    (re.compile(rf"translate\.google\.{_COUNTRY_DOMAIN}"), ReferrerSource("referral", "Google Translate")),
    (
        re.compile(rf"(?:(?:m|ipv[46]|images|encrypted|cse|lens)\.)?google\.{_COUNTRY_DOMAIN}"),
        ReferrerSource("search", "Google"),
    ),
    (re.compile(rf"(?:[a-z]{{2,3}}\.)?mail\.yahoo\.{_COUNTRY_DOMAIN}"), ReferrerSource("email", "Yahoo Mail")),
    (
        re.compile(rf"(?:(?:[a-z]{{2}}|r|m)\.)?(?:images\.)?search\.yahoo\.{_COUNTRY_DOMAIN}"),
        ReferrerSource("search", "Yahoo"),
    ),
    (re.compile(rf"(?:m\.)?yahoo\.{_COUNTRY_DOMAIN}"), ReferrerSource("search", "Yahoo")),
    (re.compile(rf"mail\.yandex\.{_COUNTRY_DOMAIN}"), ReferrerSource("email", "Yandex Mail")),
    (re.compile(rf"(?:m\.)?(?:yandex\.{_COUNTRY_DOMAIN}|ya\.ru)"), ReferrerSource("search", "Yandex")),
    (re.compile(rf"(?:[a-z-]+\.)?pinterest\.{_COUNTRY_DOMAIN}"), ReferrerSource("social", "Pinterest")),
    (re.compile(r"(?:mastodon|mstdn)\.[a-z0-9.-]+"), ReferrerSource("social", "Mastodon")),
)
"""Those that have a host of their own in each country, and that anybody can run."""


def _read_tables() -> dict[str, ReferrerSource]:
    found = {}
    for channel, table in _TABLES.items():
        for line in re.sub(r",\s+", ",", table.strip()).splitlines():
            name, _, hosts = line.strip().partition(": ")
            found.update(dict.fromkeys(hosts.split(","), ReferrerSource(channel, name)))
    return found


_SOURCES_BY_HOST: Final = _read_tables()
_SOURCES_BY_NAME: Final = {origin.name.lower().replace(" ", ""): origin for origin in _SOURCES_BY_HOST.values()} | {
    "openai": _SOURCES_BY_HOST["chatgpt.com"],
    "mistral": _SOURCES_BY_HOST["mistral.ai"],
    "twitter": _SOURCES_BY_HOST["x.com"],
    "yahoo": ReferrerSource("search", "Yahoo"),
    "yandex": ReferrerSource("search", "Yandex"),
}


@lru_cache(maxsize=32_768)
def find_referrer_source(host: str) -> ReferrerSource | None:
    """Return what is known of a host, or of the nearest domain that it belongs to; None where that is nothing.

    Args:
        host: in lower case and without ``www.``, of at most some hundred characters; or an app's name
            (``com.linkedin.android``).

    """
    known = _SOURCES_BY_HOST.get(host)
    if known is not None:
        return known
    for pattern, origin in _SOURCE_PATTERNS:
        if pattern.fullmatch(host):
            return origin
    parent = host.partition(".")[2]
    while parent:
        known = _SOURCES_BY_HOST.get(parent)
        if known is not None:
            return known
        parent = parent.partition(".")[2]
    return None


def find_campaign_source(source: str) -> ReferrerSource | None:
    """Return what is known of a campaign's source: a host (``chatgpt.com``), or a name (``perplexity``)."""
    word = source.strip().lower().replace(" ", "")
    return _SOURCES_BY_NAME.get(word) or (find_referrer_source(word.removeprefix("www.")) if "." in word else None)
