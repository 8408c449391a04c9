"""Which requests are not reported."""

from metronome.clients.reporter import Reporter


class Skipping:
    """Says of a request whether it is left out.

    Args:
        reporter: whose configuration names the paths, and what else decides.

    """

    def __init__(self, reporter: Reporter) -> None:
        config = reporter.config
        self._fault = reporter.fault
        self._exact = frozenset(config.skip)
        self._below = tuple(path if path.endswith("/") else f"{path}/" for path in config.skip)
        self._decide = config.skip_if

    def __call__(self, method: str, path: str) -> bool:
        """Tell whether a request of this method and path is not reported."""
        if self._below and (path in self._exact or path.startswith(self._below)):
            return True
        if self._decide is None:
            return False
        try:
            return bool(self._decide(method, path))
        except Exception as error:  # noqa: BLE001  # a request is not to fail because of a report
            self._fault(error)
            return False
