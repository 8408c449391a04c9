"""What Metronome works out of an event: pure functions of their arguments."""
