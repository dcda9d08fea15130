"""The adapter between the kernel's FUSE requests and the vfs: translation only.

It may touch pyfuse3, trio and the vfs. What the file system means is decided in the vfs;
here requests become calls, answers become pyfuse3's types, errors become errno, and steps
that are not ready wait.
"""
