"""The screens: everything they show comes from the API."""
