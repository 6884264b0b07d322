"""What is published: `make release`."""
