"""Stores: where events are kept and queried; one interface with two back ends."""
