"""Children's Drawing Anomaly Detection: is this drawing unusual for the child's age, how sure, and why."""
