"""The documentation: its commands are run, what is made of it is up to date, and its site needs no network."""
