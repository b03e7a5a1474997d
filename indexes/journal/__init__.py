"""Journal of every change to an index, durable before it is acknowledged, in SQLite or Postgres."""
