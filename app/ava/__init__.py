"""AVA Dataset Management: from clips to a checked AVA dataset through CVAT."""
