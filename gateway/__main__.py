"""`python -m gateway` is `tokengate`."""

from gateway.cli import main

if __name__ == "__main__":
    main()
