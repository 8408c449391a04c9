"""Syslog: how its messages are told apart, and what each of them says."""
