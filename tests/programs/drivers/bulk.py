"""Sends views with an official client of Elasticsearch or OpenSearch: bulk.py MODULE URL ITEM COUNT.

Events carry their ids, and what is not taken is sent again until it is, as a careful sender does.
"""

import importlib
import sys
import time
from typing import Any

CLASSES = {"elasticsearch": "Elasticsearch", "opensearchpy": "OpenSearch"}
EACH = 10


def main() -> None:
    module, url, item, count = sys.argv[1:]
    package = importlib.import_module(module)
    client: Any = getattr(package, CLASSES[module])(url)
    helpers = importlib.import_module(f"{module}.helpers")
    print(client.info()["version"]["number"], client.ping(), flush=True)
    for start in range(0, int(count), EACH):
        actions = [
            {
                "_op_type": "create",
                "_index": "logs",
                "_id": f"{item}-{number}",
                "_source": {"id": item, "event": "view", "@timestamp": "2026-03-01T12:00:00Z", "n": number},
            }
            for number in range(start, start + EACH)
        ]
        while True:
            try:
                helpers.bulk(client, actions, raise_on_error=False)
            except (package.exceptions.ConnectionError, package.exceptions.TransportError) as error:
                print(f"again: {error}", flush=True)
                time.sleep(0.2)
            else:
                break
        print(start + EACH, flush=True)
        time.sleep(0.05)
    print(client.indices.refresh(index="logs")["_shards"]["failed"], client.cluster.health()["status"], flush=True)


if __name__ == "__main__":
    main()
