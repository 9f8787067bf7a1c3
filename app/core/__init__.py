"""What every app shares: settings, logs, health, metrics, storage, database, login, and the Streamlit server."""
