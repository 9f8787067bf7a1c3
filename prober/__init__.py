"""Sends requests and holds Streamlit sessions at a set rate, and tells what a visitor would have noticed."""
