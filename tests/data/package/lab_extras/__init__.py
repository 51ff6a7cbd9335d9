"""A package that brings one thing of every kind that CONTRIBUTING.md names, each as one file there would be."""
