"""A whole fleet on one machine, and the story of a stop, told only by what was observed."""
