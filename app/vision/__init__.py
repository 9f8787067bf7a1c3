"""Clean or dirty? Looks at pictures of plates, bowls and cups."""
