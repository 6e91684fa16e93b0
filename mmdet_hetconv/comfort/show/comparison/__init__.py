"""Two detectors on the same images: what differs, and the page that shows it."""
