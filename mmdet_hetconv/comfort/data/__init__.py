"""Own data sets: annotation formats, layouts, checks."""
