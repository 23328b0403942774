"""A server that reads expressions: REST, a WebSocket for frames, health, metrics, and a page to try it on."""
