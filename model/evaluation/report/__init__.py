"""Report of an evaluation for readers: the text and the plots."""
