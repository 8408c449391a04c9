"""Kinds of devices, as user agents show them."""

import re
from typing import Final

_CONSOLE: Final = re.compile(r"playstation|nintendo|xbox|steam ?deck|\bouya\b", re.ASCII)
_TV: Final = re.compile(
    r"smart-?tv|hbbtv|web0s|webos.?tv|netcast|bravia|apple ?tv|googletv|google tv|android tv|crkey|roku|viera|vidaa|"
    r"\bdtv\b|\baft[a-z]{1,4}\b|\btv safari|\blg browser|opera tv|shield android|mibox",
    re.ASCII,
)
_TABLET: Final = re.compile(
    r"ipad|tablet(?! pc)|playbook|kindle|\bkf[a-z]{2,5}\b|\bsm-[tx]\d|\bgt-p\d|nexus (?:7|9|10)\b|xoom|mediapad|"
    r"matepad|lenovo tb",
    re.ASCII,
)
_MOBILE: Final = re.compile(
    r"iphone|ipod|mobi|phone|blackberry|\bbb10\b|opera mini|symbian|symbos|nokia|kaios|\bj2me\b|midp|\bpalm|webos|"
    r"\bbada\b|meego|maemo|windows ce",
    re.ASCII,
)
_PHONES_AND_TABLETS: Final = frozenset({"Android", "iOS"})
_DESKTOPS: Final = frozenset(
    """
    AmigaOS;Arch Linux;CentOS;Chrome OS;Debian;DragonFly;Fedora;FreeBSD;Gentoo;Haiku;Kubuntu;Linux;Linux Mint;Lubuntu;
    Mac OS;macOS;Mageia;Mandriva;NetBSD;OpenBSD;openSUSE;OS/2;Puppy;Red Hat;Slackware;Solaris;SunOS;SUSE;Ubuntu;
    VectorLinux;Windows;Xubuntu
    """.replace("\n    ", "").split(";")
)


def device_kind(text: str, os: str | None) -> str:
    """Return what kind of device a browser runs on.

    What an agent hides cannot be told: an iPad that asks for desktop pages says that it is a Macintosh.

    Args:
        text: the user agent.
        os: the operating system that was found in it, as `metronome.enrich.agents.Agent` has it.

    Returns:
        One of desktop, mobile, tablet, tv, console, other.

    """
    words = text.lower()
    if _CONSOLE.search(words):
        return "console"
    if _TV.search(words):
        return "tv"
    if _TABLET.search(words) or (os == "Android" and "mobi" not in words and words.startswith("mozilla/")):
        return "tablet"
    if os in _PHONES_AND_TABLETS or _MOBILE.search(words):
        return "mobile"
    return "desktop" if os in _DESKTOPS else "other"
