"""Data sets by their layout on disk, and what training does to their scans; nothing is downloaded.

base: what all of them share. folder: any folder of scans. semantickitti, nuscenes, scannet, s3dis:
those of others. transforms, mixing: changes at random, on points. metrics: intersection over union.
"""

from sparseconv.datasets.base import PointDataset as PointDataset
from sparseconv.datasets.folder import Folder as Folder
from sparseconv.datasets.folder import Streets as Streets
from sparseconv.datasets.metrics import mean_iou as mean_iou
from sparseconv.datasets.mixing import CutAndPaste as CutAndPaste
from sparseconv.datasets.mixing import Mix as Mix
from sparseconv.datasets.nuscenes import NuScenes as NuScenes
from sparseconv.datasets.s3dis import S3DIS as S3DIS
from sparseconv.datasets.scannet import ScanNet as ScanNet
from sparseconv.datasets.semantickitti import SemanticKITTI as SemanticKITTI
from sparseconv.datasets.transforms import Compose as Compose
from sparseconv.datasets.transforms import Crop as Crop
from sparseconv.datasets.transforms import Drop as Drop
from sparseconv.datasets.transforms import Elastic as Elastic
from sparseconv.datasets.transforms import Flip as Flip
from sparseconv.datasets.transforms import Jitter as Jitter
from sparseconv.datasets.transforms import Rotate as Rotate
from sparseconv.datasets.transforms import Scale as Scale

__all__ = [
    "S3DIS",
    "Compose",
    "Crop",
    "CutAndPaste",
    "Drop",
    "Elastic",
    "Flip",
    "Folder",
    "Jitter",
    "Mix",
    "NuScenes",
    "PointDataset",
    "Rotate",
    "Scale",
    "ScanNet",
    "SemanticKITTI",
    "Streets",
    "mean_iou",
]
