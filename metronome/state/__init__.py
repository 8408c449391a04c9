"""The small keyed state of an installation: keys, sessions and salts."""
