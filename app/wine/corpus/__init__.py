"""The starter corpus: notes written for this project, so that a fresh install can train and serve."""
