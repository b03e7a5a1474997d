"""Learning data: raw files read, items and images cleaned, relations derived from purchases, all prepared."""
