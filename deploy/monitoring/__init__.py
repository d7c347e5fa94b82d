"""Alerts and the dashboard: read, made and drawn by code."""
