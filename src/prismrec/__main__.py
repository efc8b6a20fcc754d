"""`python -m prismrec` is the command line, which `torchrun -m prismrec` needs."""

from prismrec.cli import main

main()
