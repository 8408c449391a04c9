"""microticks: sessions of exhibits, and what visitors touch in them (https://github.com/scriptotek/microticks).

A consumer, which is an app, starts a session with its key and receives a token; with the token alone it sends events
and stops the session. `protocol` parses requests and builds replies, `sessions` builds the events of a session,
`routes` stores them, and `reports` lists sessions and events.
"""
