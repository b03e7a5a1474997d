"""What can go wrong, and how it is answered: errors, their kinds, problem documents (RFC 9457)."""
