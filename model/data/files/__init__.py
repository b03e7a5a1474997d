"""Raw files as users have them: any compression, encoding and dialect; every row is kept or set aside with a reason."""
