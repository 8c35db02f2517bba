"""The admin API: what operators do to a running server."""
