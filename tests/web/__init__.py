"""The pages for people, as bytes and in a real browser."""
