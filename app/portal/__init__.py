"""The landing page of a host: its apps, their health, and the health of the host itself."""
