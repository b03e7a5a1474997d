"""Sources: the files of each public format or shop export, as raw items and an interaction log."""
