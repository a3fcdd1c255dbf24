"""One module per file format.

bin: scans of KITTI, nuScenes and others. las, laz: laser scans of laspy, and what is checked
before the decoder runs. npy, npz: NumPy arrays. pcd, lzf: the Point Cloud Library's, and its
compression. ply: the Stanford format. text: columns of numbers. mesh: vertices of OFF and OBJ.
foreign: E57 and VTK, by their own libraries.
"""
