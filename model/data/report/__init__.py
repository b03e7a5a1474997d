"""Report of `rcml prepare` that says whether the data is worth a training: typed counts, Markdown, and a page."""
