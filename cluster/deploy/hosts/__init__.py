"""A Ray cluster on bare hosts, by Ray's own launcher."""
