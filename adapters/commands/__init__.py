"""The commands of `propulsion adapters`, and how they print."""
