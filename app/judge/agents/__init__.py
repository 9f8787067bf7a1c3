"""The four judges. Each turns what is known of a repository into sub-scores of 0 to 10 with evidence."""
