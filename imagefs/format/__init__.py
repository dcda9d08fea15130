"""Pure formats: bytes to values and back. No files, no clock, no logging."""
