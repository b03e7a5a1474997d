"""Reports as pages: Markdown turned into one HTML file that loads nothing and runs no script."""
