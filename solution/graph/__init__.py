"""How a forward is watched: hooks that see what modules take and give, and the operations that run between them."""
