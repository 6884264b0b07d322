"""Attacks, ordered as SECURITY.md orders them; what another folder holds already is named there and not repeated."""
