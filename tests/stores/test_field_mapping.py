"""The schemas of both stores, which derive from the table of fields.

A change needs a new version of the template, or an upgrade of existing files.
"""

from metronome.fields import COLUMN_FIELDS
from metronome.stores.duckdb.rollup import DAILY
from metronome.stores.elasticsearch.template import defaults_template, index_template

KEYWORD = {"type": "keyword", "ignore_above": 1024}
NUMBER = {**KEYWORD, "fields": {"num": {"type": "double", "ignore_malformed": True}}}
STORED_ONLY = {"type": "keyword", "index": False, "doc_values": False}
KEYWORD_FIELDS = (
    *("id", "event", "format", "referer", "session", "visitor", "bot", "bot_kind", "message", "error_group"),
    *("channel", "referer_group", "country", "browser", "browser_version", "os", "os_version", "device"),
    *("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "method", "user", "import"),
)
NUMBER_FIELDS = (
    *("duration", "value", "status", "enrich_version", "TTFB", "FCP", "LCP", "CLS", "INP"),
    *("pf_net", "pf_srv", "pf_tfr", "pf_dm1", "pf_dm2", "pf_onl"),
)


def test_elasticsearch_maps_the_known_fields_as_template_version_4_does() -> None:
    template = defaults_template()
    assert template["version"] == index_template("x")["version"] == 4
    assert template["template"]["mappings"]["properties"] == {
        "@timestamp": {"type": "date"},
        "@version": {"type": "keyword"},
        "event_id": STORED_ONLY,
        **dict.fromkeys(KEYWORD_FIELDS, KEYWORD),
        **dict.fromkeys(NUMBER_FIELDS, NUMBER),
        "clientip": {**KEYWORD, "fields": {"ip": {"type": "ip", "ignore_malformed": True}}},
        "params": {"type": "flattened", "ignore_above": 1024},
        "event.original": STORED_ONLY,
    }


def test_duckdb_has_the_columns_of_existing_files_in_their_order() -> None:
    assert (
        *("id", "event", "format", "referer", "bot", "visitor", "session"),
        *("channel", "referer_group", "country", "browser", "browser_version", "os", "device"),
        *("utm_source", "utm_campaign", "status", "error_group"),
        *("duration", "TTFB", "FCP", "LCP", "CLS", "INP", "pf_net", "pf_srv", "pf_tfr", "pf_dm1", "pf_dm2", "pf_onl"),
    ) == COLUMN_FIELDS
    assert [*DAILY.columns] == ["item", "id", "event", "format", "referer", "bot", "day"]
