"""Ways in from other frameworks. Each module needs the extra that bears its name."""
