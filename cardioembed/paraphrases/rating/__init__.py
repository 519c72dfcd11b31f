"""Two people judge pairs: blind sheets and their agreement."""
