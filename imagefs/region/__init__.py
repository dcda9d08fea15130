"""Places on object stores that hold images: what lies there, and how it gets there and back."""
