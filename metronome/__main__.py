"""``python -m metronome``: the same as the command ``metronome``."""

from metronome.cli import main

if __name__ == "__main__":
    main()
