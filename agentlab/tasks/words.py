"""Everyday words and phrases from which items are put together."""

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
NOUNS = (
    "apple", "basket", "bridge", "butter", "candle", "carpet", "castle", "cheese", "corner", "dragon", "engine",
    "feather", "finger", "forest", "garden", "hammer", "harbour", "island", "jacket", "kettle", "ladder", "lantern",
    "market", "mirror", "mountain", "needle", "orange", "paper", "pencil", "pepper", "pillow", "planet", "pocket",
    "rabbit", "ribbon", "river", "saddle", "school", "shadow", "silver", "spider", "station", "summer", "table",
    "thunder", "ticket", "tunnel", "village", "violin", "window", "winter",
)  # fmt: skip
FIRST_NAMES = ("Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irina", "Jonas", "Karla", "Leo")
CITIES = ("Lisbon", "Oslo", "Prague", "Vienna", "Dublin", "Riga", "Turin", "Ghent", "Porto", "Malmo", "Graz", "Lyon")
JOBS = ("baker", "nurse", "teacher", "plumber", "pilot", "farmer", "painter", "lawyer", "driver", "cook")
GOODS = ("lamp", "chair", "kettle", "bicycle", "blanket", "clock", "mirror", "backpack", "teapot", "umbrella")
