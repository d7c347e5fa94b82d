"""A load on a local cluster that gives each panel of the dashboard data, and a picture of it."""
