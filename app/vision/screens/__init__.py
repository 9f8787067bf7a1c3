"""The tabs of the vision screens."""
