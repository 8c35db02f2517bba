"""The web console, a page that speaks to the public and the admin API."""
