"""Sends views with fluent-logger: forward.py HOST PORT ITEM COUNT."""

import sys
import time

from fluent import sender


def main() -> None:
    host, port, item, count = sys.argv[1:]
    logger = sender.FluentSender("app", host=host, port=int(port), nanosecond_precision=True)
    for number in range(int(count)):
        if not logger.emit("seen", {"id": item, "event": "view", "n": number}):
            print(f"again: {logger.last_error}", flush=True)
            logger.clear_last_error()
        time.sleep(0.01)
    logger.close()
    print("done", flush=True)


if __name__ == "__main__":
    main()
