"""Report of `rcml prepare`: the typed counts, as Markdown and as a page."""
