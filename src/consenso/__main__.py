"""`python -m consenso` is the command line."""

from consenso.cli import main

if __name__ == "__main__":
    main()
