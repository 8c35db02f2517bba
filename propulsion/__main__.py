"""`python -m propulsion` is the command `propulsion`."""

from propulsion.cli import main

main()
