"""`python -m unsample` is the command line."""

from unsample_command import main

if __name__ == "__main__":
    main()
