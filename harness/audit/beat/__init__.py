"""Whether beat sent each entry of its schedule when it was due."""
