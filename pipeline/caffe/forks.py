"""Layer types that forks of Caffe added: those the engine has, and for others their fork and what to write instead."""

from dataclasses import dataclass

SSD = "SSD's (weiliu89/caffe)"
SHUFFLENET = "ShuffleNet's (farmingyard/ShuffleNet)"
FAST_RCNN = "Fast R-CNN's (rbgirshick/caffe-fast-rcnn)"
IN_PYTHON = 'write it as a layer of type: "Python" (docs/pycaffe.md)'

# Types that the engine has and Caffe does not (docs/engine.md, "Layers of forks"), each with its fork.
EXTENSIONS = {
    "ConvolutionDepthwise": SHUFFLENET,
    "DepthwiseConvolution": "of MobileNets (yonghenglh6/DepthwiseConvolution)",
    "DetectionOutput": SSD,
    "Interp": "DeepLab's and PSPNet's (hszhao/PSPNet)",
    "Normalize": SSD,
    "Permute": SSD,
    "PriorBox": SSD,
    "ReLU6": "of MobileNets",
    "Upsample": "SegNet's (alexgkendall/caffe-segnet), and of YOLO's",
}
FIRST_FORK_FIELD = 200  # of LayerParameter: from here on no field is Caffe's


@dataclass(frozen=True)
class ForeignType:
    """A fork's layer type. field: of LayerParameter, that its parameters have there."""

    fork: str
    advice: str
    field: str = ""

    def __str__(self) -> str:
        return f"is none of Caffe 1.0's but the fork {self.fork}; {self.advice}"


# Types that the engine does not have. Of several forks that have one of a name it is the one that nets are mostly of.
FOREIGN_TYPES = {
    "AnnotatedData": ForeignType(SSD, "give the net its images as an Input", "annotated_data_param"),
    "Axpy": ForeignType(
        "SENet's (hujie-frank/SENet)",
        'write type: "Scale" with axis: 0 on the second bottom and the first, flattened, and type: "Eltwise"',
    ),
    "BN": ForeignType(
        "SegNet's (alexgkendall/caffe-segnet)",
        'write type: "BatchNorm" and type: "Scale", and turn the weights into theirs',
        "bn_param",
    ),
    "MarginInnerProduct": ForeignType(
        "SphereFace's (wy1iu/sphereface)",
        "leave it out of the deployed net, whose features are its bottom",
        "margin_inner_product_param",
    ),
    "MultiBoxLoss": ForeignType(SSD, "leave it out of the deployed net", "multibox_loss_param"),
    "ROIPooling": ForeignType(FAST_RCNN, IN_PYTHON, "roi_pooling_param"),
    "ShuffleChannel": ForeignType(SHUFFLENET, IN_PYTHON, "shuffle_channel_param"),
    "SmoothL1Loss": ForeignType(FAST_RCNN, "leave it out of the deployed net", "smooth_l1_loss_param"),
}
FOREIGN_FIELDS = {foreign.field: foreign for foreign in FOREIGN_TYPES.values() if foreign.field}
