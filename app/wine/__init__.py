"""VinoVoyant: tells a wine's country of origin from its tasting note."""
