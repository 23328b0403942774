"""A Telegram bot: pictures and videos come back with what was read in their faces."""
