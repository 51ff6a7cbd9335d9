"""The pipeline runs of a workspace: listed, searched, shown and exported."""
