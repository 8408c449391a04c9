"""Stores: where events are kept and queried, one port with two back ends."""
