"""The ground floor: what every room uses and what uses no room."""
