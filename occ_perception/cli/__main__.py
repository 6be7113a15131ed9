"""`python -m occ_perception.cli`: the command line, where `occ-perception` is not on the PATH."""

from occ_perception.cli import main

main()
