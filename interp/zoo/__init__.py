"""Models whose answers are known: the embedded model and what was measured of it, hand-set and compiled ones."""
