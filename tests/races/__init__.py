"""Races: several clients, several replicas, one truth about sessions."""
