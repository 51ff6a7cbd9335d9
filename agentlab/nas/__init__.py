"""Architecture search for the Informer forecaster. Light to import."""
