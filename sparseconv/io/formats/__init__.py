"""One module per file format.

bin: KITTI and nuScenes scans. las: laser scans of laspy. npy, npz: NumPy arrays. pcd, lzf: the
Point Cloud Library's, and its compression. ply: the Stanford format. text: columns of numbers.
records: rows behind a header.
"""
