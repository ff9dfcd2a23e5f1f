"""`python -m workers`: the same as the onebox command."""

from workers.command import main

if __name__ == "__main__":
    main()
