"""Pergola: production for small teams' data apps."""
