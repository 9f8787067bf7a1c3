"""The screens; each module is a page. No model is loaded here: everything comes from the API."""
