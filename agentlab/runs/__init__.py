"""Run folders: what a run wrote, how it is found again, compared and reported. Light to import."""
