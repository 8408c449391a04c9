"""Caches of enrichment: of results by the text that they follow from, and of the tables in ``data/``."""

import tomllib
from collections.abc import Callable
from functools import cache, lru_cache, update_wrapper
from importlib.resources import files
from inspect import signature
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

CACHED_MAX_CHARACTERS: Final = 256
CACHE_SIZE: Final = 32_768

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


def cached(
    max_characters: int = CACHED_MAX_CHARACTERS, size: int = CACHE_SIZE
) -> Callable[[Callable[[str, Unpack[Arguments]], Result]], Callable[[str, Unpack[Arguments]], Result]]:
    """Return a decorator that caches a function's results, except for long texts: clients must not fill the memory.

    The function must be called with positional arguments only: these are looked up sooner.

    Args:
        max_characters: the maximum length of the function's first argument, a text, for its result to be cached.
        size: the maximum number of results.

    """

    def decorate(
        function: Callable[[str, Unpack[Arguments]], Result],
    ) -> Callable[[str, Unpack[Arguments]], Result]:
        if len(signature(function).parameters) == 1:
            return _TextCache(function, max_characters, size)  # type: ignore[return-value]  # only for one argument
        lookup: Any = lru_cache(size)(function)

        def call(text: str, *args: *Arguments) -> Result:
            result: Result = lookup(text, *args) if len(text) <= max_characters else function(text, *args)
            return result

        update_wrapper(call, function)
        return call

    return decorate


class _TextCache(dict[str, Any]):
    """The results of a function of one text. A hit runs no Python code, which halves its cost."""

    def __init__(self, function: Callable[[str], Any], max_characters: int, size: int) -> None:
        super().__init__()
        update_wrapper(self, function)
        self._function = function
        self._max_characters = max_characters
        self._size = size

    def __missing__(self, text: str) -> Any:
        result = self._function(text)
        if len(text) <= self._max_characters:
            if len(self) >= self._size:
                self.clear()
            self[text] = result
        return result

    __call__ = dict.__getitem__


@cache
def read_table(name: str) -> dict[str, Any]:
    """Return the contents of a TOML file in ``data/``."""
    return tomllib.loads(files("metronome.enrich").joinpath("data", f"{name}.toml").read_text(encoding="utf-8"))
