"""The node agent: a region of memory cut into slots, and the guests that run in them."""
